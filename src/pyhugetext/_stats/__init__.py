"""This process in words, what stats() returns; may touch the binding, for reading, and /proc.

Not called `stats`: importing a folder of that name would put it in the place of the function
`pyhugetext.stats`.
"""
