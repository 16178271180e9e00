"""Which counter of this processor tells of page walks for instructions, and how much text its
instruction TLB reaches. Names and codes are those of Linux's tools/perf/pmu-events/arch, where x86 has
virtual-memory.json and amdzen*, arm64 common-and-microarch.json."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import NamedTuple

from pyhugetext._stats.kernel import fields_of, text_of
from pyhugetext._units import PAGE

RAW = 4  # PERF_TYPE_RAW of enum perf_type_id in linux/perf_event.h

_PMU_NAME = "/sys/bus/event_source/devices/cpu/caps/pmu_name"
# By what the kernel calls the counters: the codes of the events for instructions and for loads.
_BEFORE_GOLDEN_COVE, _GOLDEN_COVE = (0x85, 0x08), (0x11, 0x12)
_BEFORE_SKYLAKE = ("haswell", "broadwell")
_INTEL = {
    **dict.fromkeys((*_BEFORE_SKYLAKE, "skylake", "icelake"), _BEFORE_GOLDEN_COVE),
    **dict.fromkeys(("sapphire_rapids", "granite_rapids"), _GOLDEN_COVE),
}
_ACTIVE = 1 << 24 | 0x10 << 8  # cycles in which one walk at least is under way
_AMD_FAMILIES = range(0x17, 0x1B)  # Zen to Zen 6
# With all bits of the unit mask, as the kernel's own event for iTLB misses counts on all of them.
_AMD_WALKS = 0xFF85

# A walk whose tables are in the caches takes about so long; where walks are counted and not cycles.
CYCLES_A_WALK = 30


class Walks(NamedTuple):
    """A raw event for page walks, as its vendor calls it; it counts `cycles`, or else walks."""

    name: str
    config: int
    cycles: bool


class Reach(NamedTuple):
    """The last instruction TLB that a page walk comes behind: an estimate by the processor's
    name, and shared with data where `shared`."""

    processor: str
    entries: int
    shared: bool

    @property
    def bytes(self) -> int:
        return self.entries * PAGE


def _number(fields: Mapping[str, str], name: str) -> int:
    try:
        return int(fields.get(name, ""), 0)
    except ValueError:
        return -1


def instruction_walks(
    cpuinfo: Mapping[str, str] | None = None, pmu: str | None = None, machine: str = ""
) -> Walks | None:
    """What to count for instructions; None where that is not known. The arguments are for
    tests: the fields of /proc/cpuinfo, the name of the counters, uname's machine."""
    return _walks(0, cpuinfo, pmu, machine)


def load_walks() -> Walks | None:
    """The same for loads of data; Intel's only."""
    return _walks(1, None, None, "")


def _walks(
    which: int, cpuinfo: Mapping[str, str] | None, pmu: str | None, machine: str
) -> Walks | None:
    fields = fields_of("/proc/cpuinfo") if cpuinfo is None else cpuinfo
    vendor = fields.get("vendor_id", "")
    named = (text_of(_PMU_NAME) if pmu is None else pmu) or ""
    codes = _INTEL.get(named)
    if vendor == "GenuineIntel" and codes is not None:
        what = ("ITLB_MISSES", "DTLB_LOAD_MISSES")[which]
        # The older name counts cycles of each walker there is; by the counter mask it is the same.
        name = "WALK_DURATION" if named in _BEFORE_SKYLAKE else "WALK_ACTIVE"
        return Walks(f"{what}.{name}", _ACTIVE | codes[which], True)
    if which == 1:
        return None
    if vendor == "AuthenticAMD" and _number(fields, "cpu family") in _AMD_FAMILIES:
        return Walks(_amd_name(fields), _AMD_WALKS, False)
    if (machine or platform.machine()) == "aarch64":
        return Walks("ITLB_WALK", 0x35, False)
    return None


def _amd_name(fields: Mapping[str, str]) -> str:
    """One event, which was renamed for Zen 2 and for Zen 4."""
    family, model = _number(fields, "cpu family"), _number(fields, "model")
    if family == 0x17 and 0 <= model < 0x30:
        return "bp_l1_tlb_miss_l2_miss"
    zen_3 = family == 0x19 and (model < 0x10 or 0x20 <= model < 0x60)
    older = family == 0x17 or zen_3
    return "bp_l1_tlb_miss_l2_tlb_miss" if older else "bp_l1_tlb_miss_l2_tlb_miss.all"


# Entries for pages of 4 KiB. Intel by model of family 6: the second level holds data, too.
_INTEL_MODELS = (
    ("Haswell", 1024, (0x3C, 0x3F, 0x45, 0x46)),
    ("Broadwell", 1536, (0x3D, 0x47, 0x4F, 0x56)),
    ("Skylake", 1536, (0x4E, 0x5E, 0x55, 0x8E, 0x9E, 0xA5, 0xA6)),
    ("Ice Lake", 2048, (0x6A, 0x6C, 0x7D, 0x7E, 0x8C, 0x8D, 0xA7)),
    ("Golden Cove", 2048, (0x8F, 0xCF, 0x97, 0x9A, 0xB7, 0xBA, 0xBF, 0xAD, 0xAE)),
)
# AMD by family: an instruction TLB of its own. Of family 0x19 models from 0x10 to 0x1F and from
# 0x60 on are Zen 4, with the same.
_AMD = {0x17: ("Zen or Zen 2", 512), 0x19: ("Zen 3 or Zen 4", 512), 0x1A: ("Zen 5", 2048)}
# Arm by part, implementer 0x41.
_ARM_PARTS = {
    0xD0C: ("Neoverse N1", 1280),
    0xD40: ("Neoverse V1", 2048),
    0xD49: ("Neoverse N2", 1280),
    0xD4F: ("Neoverse V2", 2048),
    0xD08: ("Cortex-A72", 1024),
    0xD0B: ("Cortex-A76", 1280),
}
_UNKNOWN = Reach("", 1024, True)


def reach(cpuinfo: Mapping[str, str] | None = None) -> Reach:
    """Of this processor; that of a common size, without a name, where it is not in the table."""
    fields = fields_of("/proc/cpuinfo") if cpuinfo is None else cpuinfo
    vendor, family = fields.get("vendor_id", ""), _number(fields, "cpu family")
    if vendor == "AuthenticAMD" and family in _AMD:
        name, entries = _AMD[family]
        return Reach(f"AMD {name}", entries, False)
    if vendor == "GenuineIntel" and family == 6:
        model = _number(fields, "model")
        for name, entries, models in _INTEL_MODELS:
            if model in models:
                return Reach(f"Intel {name}", entries, True)
    if _number(fields, "CPU implementer") == 0x41:
        part = _ARM_PARTS.get(_number(fields, "CPU part"))
        if part is not None:
            return Reach(f"Arm {part[0]}", part[1], True)
    return _UNKNOWN
