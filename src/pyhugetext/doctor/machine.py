"""What the process runs on: processor, hypervisor, container, counters."""

from __future__ import annotations

import errno
import os
import platform

from pyhugetext import _words
from pyhugetext._stats.kernel import fields_of, number_of, text_of
from pyhugetext.doctor.check import INFO, LIMIT, OK, UNKNOWN, Check
from pyhugetext.doctor.storage import file_system
from pyhugetext.measure import counters


def checks() -> list[Check]:
    """All of it but the timing of page walks."""
    virtual = _hypervisor()
    return [_processor(), virtual, _container(), _multihit(virtual), _counters()]


def _processor() -> Check:
    named = fields_of("/proc/cpuinfo").get("model name")
    model = named or platform.processor() or platform.machine()
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {"model": model, "processors": count}
    return Check("machine", "processor", INFO, f"{model}, {count} usable", facts)


def _hypervisor() -> Check:
    flags = fields_of("/proc/cpuinfo").get("flags", "").split()
    vendor = text_of("/sys/class/dmi/id/sys_vendor")
    product = text_of("/sys/class/dmi/id/product_name")
    kind = text_of("/sys/hypervisor/type")
    tree = (text_of("/proc/device-tree/hypervisor/compatible") or "").strip("\0")
    name = " ".join(filter(None, (vendor, product))) or kind or tree or None
    told = " ".join(filter(None, (vendor, product))).lower()
    guest: bool | None = "hypervisor" in flags or bool(kind or tree)
    if not guest and not flags:  # arm64 has no such flag
        words = ("kvm", "qemu", "virtual", "vmware", "xen", "firecracker", "amazon ec2")
        guest = any(word in told for word in words) or None
        guest = guest and "metal" not in told
    facts = {"guest": guest, "name": name}
    if guest is None:
        return Check("machine", "hypervisor", UNKNOWN, "unknown: nothing tells", facts)
    text = "this is a virtual machine" if guest else "none: this is no virtual machine"
    text += f" ({name})" if name else ""
    return Check("machine", "hypervisor", INFO if guest else OK, text, facts)


def _container() -> Check:
    signs = [path for path in ("/.dockerenv", "/run/.containerenv") if os.path.exists(path)]
    if text_of("/run/systemd/container"):
        signs.append("/run/systemd/container")
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        signs.append("KUBERNETES_SERVICE_HOST")
    groups = text_of("/proc/1/cgroup") or ""
    signs += [
        f"cgroup {word}"
        for word in ("docker", "kubepods", "containerd", "lxc", "libpod")
        if word in groups
    ]
    overlay = file_system("/") == "overlayfs"
    facts = {"signs": signs, "root_on_overlay": overlay}
    if overlay:
        signs = ["root on overlayfs", *signs]
    if signs:
        return Check("machine", "container", INFO, f"a container: {', '.join(signs)}", facts)
    return Check("machine", "container", OK, "none seen", facts)


def _multihit(virtual: Check) -> Check:
    told = text_of("/sys/devices/system/cpu/vulnerabilities/itlb_multihit")
    facts = {"text": told}
    if told is None:
        return Check("machine", "itlb_multihit", UNKNOWN, "unknown: /sys does not tell", facts)
    if told == "Not affected":
        return Check("machine", "itlb_multihit", OK, "not affected", facts)
    if virtual.facts["guest"] is not False:
        text = f"{told}: a host that guards against it splits huge pages of code"
        return Check("machine", "itlb_multihit", LIMIT, text, facts)
    return Check("machine", "itlb_multihit", OK, f"{told}; concerns guests only", facts)


def _counters() -> Check:
    paranoid = number_of("/proc/sys/kernel/perf_event_paranoid")
    cycles = counters.refusal(counters.CYCLES)
    walks = counters.refusal(counters.ITLB_MISSES)
    facts = {
        "paranoid": paranoid,
        "cycles": cycles == 0,
        "itlb_misses": walks == 0,
        "error": _words.symbol(cycles) if cycles else None,
    }
    level = "unknown" if paranoid is None else str(paranoid)
    if not cycles:
        text = "hardware counters work" + (", iTLB misses too" if not walks else ", no iTLB misses")
        return Check("machine", "perf", OK, f"{text} (perf_event_paranoid {level})", facts)
    name = _words.symbol(cycles)
    if cycles in (errno.EACCES, errno.EPERM, errno.ENOSYS):
        text = f"perf_event_open is forbidden ({name}, perf_event_paranoid {level})"
    else:
        text = f"no hardware counters here ({name}): iTLB misses cannot be counted"
    return Check("machine", "perf", INFO, text, facts)
