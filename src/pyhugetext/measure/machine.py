"""Where a measurement was made."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import pyhugetext
from pyhugetext import _kernel


def describe() -> dict[str, Any]:
    """Processor, kernel, interpreter; ready for JSON."""
    kernel = _kernel.read()
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "hypervisor": _flags_have("hypervisor"),
        "kernel": kernel.release,
        "thp_enabled": kernel.thp_enabled,
        "python": platform.python_version(),
        "executable": sys.executable,
        "pyhugetext": pyhugetext.__version__,
    }


def _cpuinfo(*names: str) -> str:
    """The value of the first line of /proc/cpuinfo with one of these names; empty without one."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in names:
                    return value.strip()
    except OSError:
        pass
    return ""


def _processor() -> str:
    return _cpuinfo("model name") or platform.machine()  # aarch64 has no such line


def _flags_have(flag: str) -> bool:
    return flag in _cpuinfo("flags").split()
