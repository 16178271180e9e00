"""The JSON of pyperf (https://pyperf.readthedocs.io), so that its commands read a measurement."""

from __future__ import annotations

from typing import Any

from pyhugetext.measure.measurement import Measurement


def suite(measurement: Measurement, side: str, name: str) -> dict[str, Any]:
    """One side as a suite of one benchmark, called the same on both, so that `pyperf compare_to`
    finds the pair. A value is the CPU time of a run in seconds, one for each slot."""
    values = [lap / measurement.loops / 1e9 for lap in measurement.slots(side)]
    if not values:
        raise ValueError("no slot was measured")
    return {
        "version": "1.0",
        "metadata": {
            "name": name,
            "unit": "second",
            "loops": measurement.loops,
            "inner_loops": 1,
            "tags": ["pyhugetext", side],
        },
        "benchmarks": [{"runs": [{"values": values}]}],
    }
