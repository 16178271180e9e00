"""The page that `pyhugetext report` writes: gathering what is on it, drawing it, writing it out.

Nothing of it runs in a browser: no script, and a Content-Security-Policy that allows none, so a
page may be opened whatever the files of the process are called.
"""
