"""The files of an environment, made ready for images; may touch those files, binding and facts, how
`process` reads ELF files, and `children` that try what was changed.

`alignment` says what is to be changed in a file, `rights` whether it may be, `rewriting` puts a
changed file in place of the old one, `record` has the distribution's RECORD follow, `trial` loads
what was changed, and imports what is there.
"""
