"""The commands, one file each, named as the command (`-` is written `_`); they may touch all but each other. A file has

- `SUMMARY`: a line for `pyhugetext --help`;
- `MANUAL`: what follows the options in `pyhugetext COMMAND --help`, as it stands;
- `add_arguments(parser)`: its options, an argparse parser's; `--json` and the like are its own;
- `run(options) -> int`: does it, and returns the exit status. Raises outcome.Failure with one
  sentence where it cannot; OSError and KeyboardInterrupt are dealt with by main;
- `TAKES_COMMAND = True` where a program may follow `--`: `options.command` has it, or None;
- `PRINTS = False` where it needs no standard output.

`options.known` has all commands, the parser, and the parser of each command, by name.

All are imported for every call, so what only one needs is imported inside its functions.
"""
