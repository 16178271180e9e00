"""What `mkdocs build` needs to know of the repository: pages that lie outside of docs, links to files
that are not on the site, and pages that may be there or not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from posixpath import normpath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
SOURCES = "https://github.com/pyhugetext/pyhugetext/blob/main/"

# Pages of the site that are files elsewhere.
ELSEWHERE = {"SECURITY.md": "security.md", "CHANGELOG.md": "changes.md", "README.md": "index.md"}
# Those that a branch brings, or that are made: without them their place in the navigation goes.
OPTIONAL = {"any-program.md", "trust.md", "platforms.md", "manual.md"}
# Pictures of the sources that pages show.
PICTURES = ("benchmarks/results/",)

_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def on_config(config: Any) -> Any:
    config.nav = _present(config.nav, _pages(config.docs_dir))
    return config


def _pages(directory: str) -> set[str]:
    pages = {*os.listdir(directory), *ELSEWHERE.values()}
    return pages | ({"manual.md"} if _manual() else set())


def _present(entries: list[Any], pages: set[str]) -> list[Any]:
    out = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            out.append({title: _present(target, pages)})
        elif target not in OPTIONAL or target in pages:
            out.append(entry)
    return out


def on_files(files: Any, config: Any) -> Any:
    for source, target in ELSEWHERE.items():
        if target != "index.md":
            content = (ROOT / source).read_text("utf-8")
            files.append(File.generated(config, target, content=content))
    for folder in PICTURES:
        for path in sorted((ROOT / folder).glob("*.svg")):
            made = File.generated(config, f"assets/{path.name}", abs_src_path=str(path))
            files.append(made)
    manual = _manual()
    if manual:
        files.append(File.generated(config, "manual.md", content=manual))
    return files


def _manual() -> str:
    """The manual page as text, where `make man` has made it."""
    page = ROOT / "build" / "pyhugetext.1"
    if not page.is_file():
        return ""
    try:
        shown = subprocess.run(
            ["man", "-l", "-P", "cat", str(page)],
            env={**os.environ, "MANWIDTH": "88", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""},
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"docs: no page of the manual: {error}", file=sys.stderr)
        return ""
    return f"# Manual page\n\n```text\n{shown.stdout.strip()}\n```\n"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files of the repository become links of the site, or to the repository."""
    here = page.file.src_path
    source = next((name for name, to in ELSEWHERE.items() if to == here), f"docs/{here}")
    folder = os.path.dirname(source if here != "index.md" else "docs/index.md")

    def replaced(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        if re.match(r"[a-z]+:", target):
            return match.group()
        path = normpath(os.path.join(folder, target))
        if path in ELSEWHERE:
            path = ELSEWHERE[path]
        elif path.startswith(PICTURES) and path.endswith(".svg"):
            path = f"assets/{os.path.basename(path)}"
        elif path.startswith("docs/"):
            path = path[len("docs/") :]
        elif (ROOT / path).exists():
            path = SOURCES + path
        return f"{before}{path}{after}"

    # Drawings as sources: the site loads no script from elsewhere to draw them.
    shown = markdown.replace("```mermaid", "```text")
    return _LINK.sub(replaced, shown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The theme's search has no name, for who cannot see it."""
    return output.replace(
        'data-md-component="search" role="dialog"',
        'data-md-component="search" role="dialog" aria-label="Search"',
    )
