"""The command line, `pyhugetext COMMAND` or `python -m pyhugetext COMMAND`; may touch all else.

`main` parses and dispatches, `commands` holds one file a command, `reporting` the page; the other
modules are what they share: `outcome` for failures, `text` for tables and sizes, `progress`,
`stores` for the stores that the options address, `recording` and `installed` for finding what to
prepare. Nothing here is imported when Python starts.
"""
