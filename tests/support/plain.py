"""A program that does the same with and without the package, whatever is forbidden to it. Imported by
path in the children, so only the standard library is at hand."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from support.harm import work

PROGRAM = (
    f"import sys; sys.path.insert(0, {os.path.abspath(__file__).rpartition('/support/')[0]!r}); "
    "from support import plain; plain.program(sys.argv[1])"
)


def program(told: str) -> None:
    """A program whose output is the same with and without the package; leaves its stats() in the
    file `told`."""
    print(work())
    print("on stderr", file=sys.stderr)
    try:
        import pyhugetext

        stats = json.dumps(pyhugetext.stats().as_dict())
    except Exception as error:
        stats = json.dumps({"failed": repr(error)})
    with open(told, "w") as file:
        file.write(stats)
    sys.exit(3)


def same_as_plain(
    python: Callable[..., Any],
    tmp_path: Any,
    prefix: tuple[str, ...] = (),
    plain_prefix: tuple[str, ...] | None = None,
    env: dict[str, str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Runs the program under the command `prefix`, asserts that it does what it does with the
    package turned off (under `plain_prefix` where that is another one), and returns its stats().
    `python` is the fixture."""
    told, errors = tmp_path / "stats.json", tmp_path / "stderr"
    # Apart from what the prefix itself may say.
    apart = ("sh", "-c", 'exec 2> "$0"; exec "$@"', str(errors))
    outcomes = []
    for environ, before in (
        ({"PYHUGETEXT": "0"}, prefix if plain_prefix is None else plain_prefix),
        (env or {}, prefix),
    ):
        told.unlink(missing_ok=True)
        prefixed = (*before, *apart)
        result = python(PROGRAM, str(told), prefix=prefixed, env=environ, check=False, **options)
        outcomes.append((result.returncode, result.stdout, errors.read_text()))
    assert outcomes[0] == (3, f"{work()}\n", "on stderr\n")
    assert outcomes[1] == outcomes[0]
    stats: dict[str, Any] = json.loads(told.read_text())
    return stats


def told_causes(stats: dict[str, Any]) -> str:
    """All that stats() says about why something was not done."""
    texts = [stats["reason"] or "", *stats["problems"]]
    for region in stats["regions"]:
        if region["coverable_bytes"] or not stats["mapped_bytes"]:
            texts += [region["reason"] or "", *region["fallbacks"]]
    return "\n".join(texts)
