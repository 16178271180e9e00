"""The README as a package index shows it: every address is absolute, and code stays as it is."""

from __future__ import annotations

from types import ModuleType

import pytest

from support.common import ROOT, script


@pytest.fixture(scope="module")
def description() -> ModuleType:
    return script(ROOT / "packaging" / "description.py")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](docs/a.md)", "[a](https://h/p/blob/v1/docs/a.md)"),
        ("[a\nb](docs/a.md#c)", "[a\nb](https://h/p/blob/v1/docs/a.md#c)"),
        ("[a](#c)", "[a](https://h/p/blob/v1/README.md#c)"),
        ("![a](docs/a.svg)", "![a](https://h/p/raw/v1/docs/a.svg)"),
        ("[![a](a.png)](a.md)", "[![a](https://h/p/raw/v1/a.png)](https://h/p/blob/v1/a.md)"),
        ("[a](https://x/y) [b](mailto:c@d)", "[a](https://x/y) [b](mailto:c@d)"),
        ("`[a](b)` ``[a](`b`)``", "`[a](b)` ``[a](`b`)``"),
        (
            "[a](b)\n```text\n[c](d)\n```\n[e](f)\n",
            "[a](https://h/p/blob/v1/b)\n```text\n[c](d)\n```\n[e](https://h/p/blob/v1/f)\n",
        ),
        ("- x\n  ~~~\n  [c](d)\n  ~~~\n", "- x\n  ~~~\n  [c](d)\n  ~~~\n"),
    ],
)
def test_addresses_become_absolute(description: ModuleType, text: str, shown: str) -> None:
    assert description.absolute(text, "README.md", "https://h/p/", "v1") == shown


def test_field_is_told_as_the_builder_wants_it(
    description: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    project = {"version": "1.2", "urls": {"Source": "https://h/p"}}
    told = description.dynamic_metadata({"input": "README.md"}, project)
    assert told["readme"]["content-type"] == "text/markdown"
    assert "https://h/p/blob/v1.2/docs/first-steps.md" in told["readme"]["text"]
