"""The command line: `pyhugetext COMMAND`, also `python -m pyhugetext COMMAND`.

`main` parses and dispatches, `commands` holds one file a command, the other modules are what they
share: `outcome` for failures, `text` for tables and sizes, `progress`, `stores` for the stores that
the options address, `recording` and `installed` for finding what to prepare. Nothing here is
imported when Python starts.
"""
