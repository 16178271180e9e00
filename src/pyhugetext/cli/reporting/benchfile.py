"""Reading what `pyhugetext bench --json` printed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from pyhugetext.cli.outcome import Failure

if TYPE_CHECKING:
    from pyhugetext.measure.measurement import Measurement
    from pyhugetext.measure.statistics import Ratio

_LARGEST = 64 << 20  # bytes; a minute of measuring gives some tens of KiB

# Outside of these a ratio of CPU times is no measurement but a mistake.
_LOWEST, _HIGHEST = 1e-3, 1e3


@dataclass(frozen=True)
class Bench:
    """A measurement as the page shows it. Ratios are huge / small: below 1 is faster."""

    title: str
    sentence: str  # the verdict
    effect: Ratio
    control: Ratio | None
    effect_ratios: tuple[float, ...]
    control_ratios: tuple[float, ...]


def read(path: str) -> Bench:
    """The measurement in a file. Failure where it is none; OSError where it cannot be read."""
    with open(path, "rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise Failure(f"{path}: larger than any output of pyhugetext bench")
    try:
        document = json.loads(content, parse_constant=_no_number)
        return _bench(document, os.path.basename(path))
    except RecursionError:
        raise Failure(f"{path}: not the JSON of pyhugetext bench") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        # JSON that is none, of something else, or with times that cannot be.
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise Failure(f"{path}: not the JSON of pyhugetext bench: {said}") from None


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no time")


def _bench(document: object, name: str) -> Bench:
    from pyhugetext.measure.measurement import Measurement

    if not isinstance(document, dict):
        raise ValueError("it is not an object")
    return bench_of(Measurement.from_dict(document), name)


def bench_of(measurement: Measurement, name: str) -> Bench:
    """A measurement, as the page shows it; `name` is for one that has none. ValueError where a
    time in it cannot be."""
    from pyhugetext.measure.measurement import CONTROL, EFFECT

    effect = _ratios(measurement, EFFECT)
    if not effect:
        raise ValueError("it holds no measured pair")
    control = _ratios(measurement, CONTROL)
    return Bench(
        title=_title(measurement, name),
        sentence=measurement.verdict.sentence,
        effect=measurement.effect,
        control=measurement.control if control else None,
        effect_ratios=effect,
        control_ratios=control,
    )


def _ratios(measurement: Measurement, kind: str) -> tuple[float, ...]:
    out = []
    for quad in measurement.of(kind):
        if min(quad.lap) <= 0:
            raise ValueError("a time in it is not positive")
        for huge, small in measurement.pairs(quad):
            ratio = huge / small
            if not _LOWEST < ratio < _HIGHEST:
                raise ValueError(f"a ratio of {ratio:.3g} cannot be")
            out.append(ratio)
    return tuple(out)


def _title(measurement: Measurement, name: str) -> str:
    """What was measured, where the file tells, else the file's name."""
    for key in ("name", "stmt", "command"):
        value = measurement.settings.get(key)
        if isinstance(value, list):
            value = " ".join(str(part) for part in value)
        if isinstance(value, str) and value.strip():
            line = " ".join(value.split())
            return line if len(line) <= 160 else line[:157] + "..."
    return name
