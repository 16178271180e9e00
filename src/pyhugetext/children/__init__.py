"""Programs that run in a python of their own, `python -m pyhugetext.children.NAME`, and starting them.
They touch the public functions, the stores and the words, and nothing of who started them.

`runner` is the parent's side, `channel` the child's. What lies in the user's current directory is
neither taken for a module of this package nor for one of the standard library.
"""
