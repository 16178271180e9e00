"""Programs as files, before they run: what a command starts, which libraries that needs, whether the
preload library comes into it; may touch files, for reading, `process` and `_stats`.

Nothing is started here.
"""
