"""A measurement in one line, to be sent to somebody who was not there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pyhugetext import _words
from pyhugetext.measure.statistics import Ratio

_LONGEST = 60  # letters of a name
_NOISE = re.compile(r"\((?:R|TM|tm)\)| CPU\b| Processor\b|\s+@.*| \d+-Core\b")


def name_of(settings: Mapping[str, Any]) -> str:
    """What was measured: the name it was given, or the code itself."""
    for key in ("name", "stmt", "command"):
        value = settings.get(key)
        if isinstance(value, (list, tuple)):
            value = " ".join(map(str, value))
        if isinstance(value, str) and value.strip():
            lines = [line.strip() for line in value.splitlines() if line.strip()]
            return _words.shorten(_words.printable("; ".join(lines)), _LONGEST)
    return "it"


def line(settings: Mapping[str, Any], word: str, effect: Ratio, machine: Mapping[str, Any]) -> str:
    """`numpy matmul: 2.8 % (2.5 to 3.1) less time on huge text, AMD EPYC, Linux 6.18, 48 s`;
    `word` is the verdict's."""
    parts = [f"{name_of(settings)}: {_found(word, effect)}"]
    processor = " ".join(_NOISE.sub("", str(machine.get("processor", ""))).split())
    parts += [_words.printable(processor)] if processor else []
    release = re.match(r"\d+\.\d+", str(machine.get("kernel", "")))
    parts += [f"Linux {release[0]}"] if release else []
    seconds = settings.get("elapsed_seconds")
    parts += [f"{seconds:.0f} s"] if isinstance(seconds, (int, float)) else []
    return ", ".join(parts)


def _found(word: str, effect: Ratio) -> str:
    less = [100 * (1 - ratio) for ratio in (effect.median, effect.high, effect.low)]
    if word == "faster":
        return f"{less[0]:.1f} % ({less[1]:.1f} to {less[2]:.1f}) less time on huge text"
    if word == "slower":
        return f"{-less[0]:.1f} % ({-less[2]:.1f} to {-less[1]:.1f}) more time on huge text"
    if word == "no difference":
        return (
            f"no difference shown on huge text (between {-less[1]:.1f} % more and {less[2]:.1f} % "
            "less time)"
        )
    return f"no verdict on huge text ({'too noisy' if word == 'too noisy' else 'too few runs'})"
