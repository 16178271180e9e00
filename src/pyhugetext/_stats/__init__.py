"""This process in words: what stats() returns, and where it comes from. Reads the binding and /proc,
changes nothing, and imports nothing above the binding.

Not called `stats`: importing a folder of that name would put it in the place of the function
`pyhugetext.stats`.
"""
