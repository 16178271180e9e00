"""Asks for every address that the documents name, one after the other, and fails where one is gone. It
needs a network: `make docs-links`. `--list` only prints them."""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = re.compile(r"https?://[^\s)>\"'`]+")


def addresses() -> dict[str, list[str]]:
    """Each with the documents that name it."""
    found: dict[str, list[str]] = {}
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "mkdocs.yml"]
    for page in sorted([*pages, ROOT / "pyproject.toml"]):
        for address in ADDRESS.findall(page.read_text("utf-8")):
            found.setdefault(address.rstrip(".,"), []).append(page.name)
    return found


def answer(address: str) -> str:
    """Why it cannot be had; empty where it can."""
    request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "docs-links"})
    try:
        with urllib.request.urlopen(request, timeout=20):
            return ""
    except (urllib.error.URLError, OSError, ValueError) as error:
        return str(error)


def main() -> int:
    failed = 0
    for address, pages in addresses().items():
        why = "" if "--list" in sys.argv else answer(address)
        failed += bool(why)
        print(f"{why or 'ok'}: {address} ({', '.join(dict.fromkeys(pages))})")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
