"""`python -m pyhugetext`: the command line."""

import sys

from pyhugetext.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
