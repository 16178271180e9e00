"""Prints a script that completes commands, options, process ids and files in a shell."""

from __future__ import annotations

import argparse
import sys

from pyhugetext.cli.outcome import OK

SUMMARY = "print a script for completion in a shell"

MANUAL = """\
It is made for the commands of this version: print it again after an upgrade. For zsh it is that for
bash, by way of zsh's bashcompinit.

examples:
  eval "$(pyhugetext completion bash)"         in ~/.bashrc; or once and for all:
  pyhugetext completion bash >~/.local/share/bash-completion/completions/pyhugetext
  eval "$(pyhugetext completion zsh)"          in ~/.zshrc
  pyhugetext completion fish >~/.config/fish/completions/pyhugetext.fish

exit status:
  0 printed; 2 wrong usage
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="for which shell")


def run(options: argparse.Namespace) -> int:
    from pyhugetext.cli import completing

    modules, parser, parsers = options.known
    found = completing.commands(modules, parsers)
    own = list(completing.options_of(parser))
    script = completing.fish if options.shell == "fish" else completing.bash
    sys.stdout.write(script(found, own))
    return OK
