"""Measuring whether a program runs faster from 2 MiB pages.

`switcher` compares both within one process, `processes` whole commands; `statistics` turns what
they find into a ratio with an interval and a verdict.
"""
