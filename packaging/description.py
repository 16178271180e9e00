"""What PyPI shows of the project: the README, whose links lead into the repository.

A package index shows that text alone. So its relative links and pictures get the address that they have in
the repository at the tag of the version that is built. scikit-build-core calls this while it
builds (`[[tool.dynamic-metadata]]` in pyproject.toml).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PICTURES = (".gif", ".jpg", ".png", ".svg", ".webp")

_CODE = re.compile(r"^( *)(```+|~~~+).*?^\1\2|``.*?``|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_TARGET = re.compile(r"(?<=\]\()[^)\s]+")
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def absolute(text: str, page: str, repository: str, tag: str) -> str:
    """The text of the page, a file at the top of the repository, with absolute addresses only."""

    def address(found: re.Match[str]) -> str:
        target = found.group()
        if _ABSOLUTE.match(target):
            return target
        # A heading of the page itself: PyPI gives headings other names than GitHub does.
        path = page + target if target.startswith("#") else target
        kind = "raw" if path.endswith(PICTURES) else "blob"
        return f"{repository.rstrip('/')}/{kind}/{tag}/{path}"

    out, end = [], 0
    for code in _CODE.finditer(text):
        out += [_TARGET.sub(address, text[end : code.start()]), code.group()]
        end = code.end()
    return "".join([*out, _TARGET.sub(address, text[end:])])


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """The field `readme`: the page that the settings name, with pictures and links at `Source`."""
    page = settings["input"]
    text = Path(page).read_text("utf-8")
    told = absolute(text, page, project["urls"]["Source"], f"v{project['version']}")
    return {"readme": {"text": told, "content-type": "text/markdown"}}
