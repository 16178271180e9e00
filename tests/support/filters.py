"""Whether seccomp filters can be used here, by which system calls of children fail."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

from support.common import TESTS


@functools.lru_cache
def why_no_filters() -> str:
    """Why seccomp filters cannot be used here; empty where they can."""
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); from support import harm as h\n"
        "if not hasattr(h.os, 'pidfd_open'): sys.exit('os.pidfd_open is missing')\n"
        "h.install(h.notify_within(4096, 8192), listen=True)"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False
    )
    return result.stderr.strip().rpartition("\n")[2] if result.returncode else ""


needs_filters = pytest.mark.skipif(
    bool(why_no_filters()), reason=f"no seccomp filters here: {why_no_filters()}"
)
