"""Other processes, read from /proc as far as the kernel allows: nothing is stopped, traced or changed.
Touches the binding and the words of `_stats`."""
