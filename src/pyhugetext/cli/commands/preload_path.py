"""Prints where the preload library is, for whoever starts programs without pyhugetext run: by
LD_PRELOAD, in a unit of systemd, or for the whole machine."""

from __future__ import annotations

import argparse
import os
import sys

from pyhugetext.cli.outcome import OK, Failure

SUMMARY = "print where the preload library is"

MANUAL = """\
in one command:
  LD_PRELOAD="$(pyhugetext preload-path)" node server.js
  PYHUGETEXT_ variables mean for it what they mean for a Python. What the program starts inherits
  both. pyhugetext run does the same, and says where it will have no effect.

in a unit of systemd (systemctl edit UNIT):
  [Service]
  Environment=LD_PRELOAD=PATH PYHUGETEXT_STORE=/var/cache/UNIT/pyhugetext

for the whole machine, /etc/ld.so.preload:
  Its libraries are loaded into every program that is started, those that repair the machine
  included: a shell for rescue, package management, sudo. Where the file that it names is missing, as
  after pip uninstall or an upgrade of Python, each start of a program prints an error of ld.so's. So
  copy the library to a place of its own (a virtual environment is none), as root, and name the copy:
    install -m 755 "$(pyhugetext preload-path)" /usr/local/lib/
    echo /usr/local/lib/libpyhugetext_preload.so >> /etc/ld.so.preload
  Take the line out before the file goes. To name programs one by one is nearly always the better way.

  Programs that run with more rights than their caller (set-user-ID) take no library from LD_PRELOAD
  by its path; the one in /etc/ld.so.preload they do load, and it leaves them alone.

exit status:
  0 printed; 1 there is no such library, and a sentence on stderr says why; 2 wrong usage
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    from pyhugetext.programs import preload

    try:
        path = preload.path()
    except preload.Missing as missing:
        raise Failure(str(missing)) from None
    # As the file system has it: it is read by programs.
    sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    return OK
