"""The pages of `pyhugetext report` and `bench`; may touch processes, for reading, and the file it writes.

Nothing of it runs in a browser: no script, and a Content-Security-Policy that allows none, so a
page may be opened whatever the files of the process are called.
"""
