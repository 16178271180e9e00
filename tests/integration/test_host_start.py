"""Starts and imports under odd flags and in odd surroundings: nothing is printed, nothing is another
way than without the package, and the entry is made."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.host import LIMIT, Host

pytestmark = pytest.mark.quick

FLAGS = [
    ("-W", "error"),
    ("-X", "dev"),
    ("-bb",),
    ("-X", "utf8=0"),
    ("-I",),
    ("-O", "-W", "always"),
    ("-X", "dev", "-W", "error", "-bb"),
    *([("-X", "warn_default_encoding"), ("-X", "warn_default_encoding", "-W", "error", "-bb")]
      if sys.version_info >= (3, 10) else []),
]  # fmt: skip


@pytest.mark.parametrize("configured", [True, False], ids=["settings", "no settings"])
@pytest.mark.parametrize(
    ("flags", "more"),
    [
        *((flags, {}) for flags in FLAGS),
        ((), {"PYTHONWARNINGS": "error"}),
        ((), {"PYTHONWARNDEFAULTENCODING": "1", "PYTHONWARNINGS": "error"}),
        ((), {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
        ((), {"PYTHONIOENCODING": "ascii:strict", "PYTHONDEVMODE": "1"}),
    ],
    ids=lambda value: " ".join(value) or None,
)
def test_nothing_is_printed_however_python_is_told_to_warn(
    host: Host,
    flags: tuple[str, ...],
    more: dict[str, str],
    configured: bool,
) -> None:
    env = {**(host.environment() if configured else host.default()), **more}
    if "-I" in flags:
        env.pop("PYTHONDONTWRITEBYTECODE")
    code = "import hostbig; print(hostbig.triple(14))"
    for kind in ("cold", "warm"):
        assert host.run(code, env=env, flags=flags) == (0, "42\n", ""), kind
    assert host.has_record_of("hostbig")


@pytest.mark.parametrize(
    "setup",
    [
        "umask 0777",
        "mkdir gone; cd gone; rmdir ../gone",
        "exec 0<&- 2>&-",
        "ulimit -n 8",
        "trap '' TERM INT HUP XFSZ PIPE CHLD",
        "umask 0777; mkdir -m 700 gone; cd gone; rmdir ../gone; exec 0<&- 2>&-; ulimit -n 8",
    ],
)
def test_start_in_odd_surroundings(host: Host, setup: str) -> None:
    code = (
        "import hostbig, os, signal\n"
        "old = os.umask(0o22)\n"
        "os.write(1, repr((hostbig.triple(14), oct(old), sorted(os.listdir('/proc/self/fd')),"
        " [signal.getsignal(n) for n in (1, 2, 13, 15, 17, 25)])).encode())"
    )

    def start(**settings: str) -> tuple[int, str, str]:
        result = subprocess.run(
            ["sh", "-ec", f'{setup}\nexec "$@"', "sh", *host.command(code)],
            env=host.environment(**settings),
            cwd=host.place,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        return result.returncode, result.stdout, result.stderr

    plain = start(PYHUGETEXT="0")
    assert plain[0] == 0
    assert plain[1].startswith("(42, ")
    before = host.files()
    for kind in ("cold", "warm"):
        assert start() == plain, kind
    assert host.files() == before
    # A builder may need more descriptors than there are.
    assert host.has_record_of("hostbig") or "ulimit" in setup
