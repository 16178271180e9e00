"""Whether what is installed works: run by the python that it is installed for, once it was built and
wherever it is installed. Prints what it saw, and needs nothing but the package and a writable
PYHUGETEXT_STORE.

`--inactive WORDS`: the package must stand still, for a reason with these words.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

ASK = """
import json, sys
started = "pyhugetext._boot" in sys.modules
import pyhugetext
stats = pyhugetext.stats()
print(json.dumps([started, stats.active, stats.reason, stats.mapped_bytes, list(stats.problems)]))
"""


def run(*arguments: str) -> str:
    """What a python of its own prints; it must print no error and end well."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYHUGETEXT") or name == "PYHUGETEXT_STORE"
    }
    command = [sys.executable, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    out, err = result.stdout.decode(), result.stderr.decode()
    if result.returncode or err:
        sys.exit(f"{command} ended with {result.returncode}:\n{out}{err}")
    return out


def main() -> None:
    """Starts pythons and looks at them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inactive", metavar="WORDS")
    wanted = parser.parse_args().inactive
    if run("-c", "pass"):
        sys.exit("a python that does nothing printed something")
    run("-c", ASK)  # makes the entries that the second start finds
    started, active, reason, mapped, problems = json.loads(run("-c", ASK))
    print(
        f"{sys.version.split()[0]}: active {active}, {mapped} bytes mapped, {reason!r} {problems}"
    )
    if wanted is not None:
        if active or started or wanted not in reason:
            sys.exit(f"should stand still because: {wanted}")
        return
    if not started:
        sys.exit("python was not started from the .pth")
    if reason.startswith("no native part"):
        sys.exit("the native part does not load")
    if problems:
        sys.exit("there are problems")
    print(run("-m", "pyhugetext", "--version").strip())


if __name__ == "__main__":
    main()
