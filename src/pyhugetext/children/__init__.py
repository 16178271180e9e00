"""Programs in a python of their own; may touch what any program may, not who started them.

They are run as `python -m pyhugetext.children.NAME`. `runner` is the parent's side, `channel` the
child's. What lies in the user's current directory is neither taken for a module of this package nor
for one of the standard library.
"""
