"""Other processes, only read; may touch /proc, the files they have mapped, `_stats`."""
