"""Measuring whether a program runs faster; may touch the text of the processes it starts for that.

`switcher` compares both within one process, `processes` whole commands; `statistics` turns what
they find into a ratio with an interval and a verdict. `expectation` says beforehand whether a gain
is to be expected, `stopping` when enough is known.
"""
