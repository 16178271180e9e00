"""Where a measurement was made."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import pyhugetext
from pyhugetext._stats import kernel


def describe() -> dict[str, Any]:
    """Processor, kernel, interpreter; ready for JSON."""
    settings = kernel.read()
    processor = kernel.fields_of("/proc/cpuinfo")
    return {
        # aarch64 has no such line.
        "processor": processor.get("model name") or platform.machine(),
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "hypervisor": "hypervisor" in processor.get("flags", "").split(),
        "kernel": settings.release,
        "thp_enabled": settings.thp_enabled,
        "python": platform.python_version(),
        "executable": sys.executable,
        "pyhugetext": pyhugetext.__version__,
    }
