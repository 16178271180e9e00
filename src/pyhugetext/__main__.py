"""`pyhugetext` and `python -m pyhugetext`: the command line."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line on sys.argv; returns the exit status."""
    # The wheel for every platform: there is nothing to command, and the commands need later syntax.
    if sys.version_info < (3, 9):  # noqa: UP036
        from pyhugetext import _words

        print(f"pyhugetext: {_words.no_native_part(None)}", file=sys.stderr)
        return 1
    try:
        # Ctrl-C during this import ends it as at any other moment.
        from pyhugetext.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # pyhugetext.cli.outcome.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
