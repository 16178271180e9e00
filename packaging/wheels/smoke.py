"""Whether what is installed works: run by the python that it is installed for, once it was built and
wherever it is installed. Prints what it saw, and needs nothing but the package and a writable
PYHUGETEXT_STORE.

`--active`: some text must be on huge pages. `--inactive WORDS`: the package must stand still, for a reason
with these words.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

PRELOAD = """
import os, pyhugetext
path = os.path.join(os.path.dirname(pyhugetext.__file__), "libpyhugetext_preload.so")
print(path if os.path.exists(path) else "")
"""
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
    environment["PYHUGETEXT_BUILD_TIME"] = "unlimited"  # on a slow machine, too
    command = [sys.executable, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    out, err = result.stdout.decode(), result.stderr.decode()
    if result.returncode or err:
        sys.exit(f"{command} ended with {result.returncode}:\n{out}{err}")
    return out


def preload() -> None:
    """A program without threads or Python starts with the library in front of it."""
    library = run("-c", PRELOAD).strip()
    environment = {"PATH": os.defpath, "LD_PRELOAD": library}
    told = subprocess.run(["ls", "/"], env=environment, capture_output=True, check=False)
    if not library or told.returncode or told.stderr:
        sys.exit(f"with {library!r} in LD_PRELOAD ls ended with {told.returncode}: {told.stderr!r}")


def main() -> None:
    """Starts pythons and looks at them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--active", action="store_true")
    parser.add_argument("--inactive", metavar="WORDS")
    options = parser.parse_args()
    wanted = options.inactive
    if run("-c", "pass"):
        sys.exit("a python that does nothing printed something")
    run("-c", ASK)  # makes the entries that the second start finds
    started, active, reason, mapped, problems = json.loads(run("-c", ASK))
    reason = reason or "nothing is wrong"
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
    preload()
    if options.active:
        if not active or not mapped:
            sys.exit("no text is on huge pages")
        if "python" not in run("-m", "pyhugetext", "status", str(os.getpid())):
            sys.exit("status does not know this process")


if __name__ == "__main__":
    main()
