"""HTML and SVG in which nothing can be forgotten to be escaped: a text is, unless it is Markup."""

from __future__ import annotations

import html

from pyhugetext.cli import text


class Markup(str):
    """Markup that goes out as it is."""

    __slots__ = ()


def escape(content: str) -> Markup:
    """A text as markup. Control characters, bytes that are not UTF-8, and characters that turn the
    direction of writing become escapes such as `\\x1b`."""
    if isinstance(content, Markup):
        return content
    return Markup(html.escape(text.printable(content)))


def join(*parts: str, between: str = "") -> Markup:
    """The parts one after the other."""
    return Markup(escape(between).join(escape(part) for part in parts))


def el(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """An element. `class_="x"` is `class="x"`, `aria_label` is `aria-label`; an attribute that is
    None is left out."""
    out = [f"<{name}"]
    for key, value in attributes.items():
        if value is not None:
            shown = value if isinstance(value, str) else f"{value:g}"
            out.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    out.append(">")
    out.extend(escape(child) for child in children)
    out.append(f"</{name}>")
    return Markup("".join(out))
