"""Django's templates: a page with inheritance, loops, filters and escaping."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

TITLE = "Django templates"
NEEDS = ("Django",)

_BASE = """<!doctype html><html><head><title>{% block title %}{% endblock %}</title></head>
<body class="{{ theme|default:'light' }}">{% block body %}{% endblock %}</body></html>"""

_ROW = """<tr class="{% cycle 'odd' 'even' %}">{% for cell in row.cells %}<td>{{ cell }}</td>
{% endfor %}<td>{{ row.name|title }}</td><td>{{ row.price|floatformat:2 }}</td></tr>"""

_PAGE = """{% extends "base" %}{% block title %}{{ title|upper }}{% endblock %}
{% block body %}<table>{% for row in rows %}{% if row.shown and row.price > 3 %}
{% include "row" %}{% else %}<tr><td>{{ forloop.counter }}: {{ row.note|truncatechars:20 }}
{{ row.note|urlize }}</td></tr>{% endif %}{% empty %}nothing{% endfor %}</table>
{% with total=rows|length %}{{ total|pluralize:"row,rows" }}: {{ total }}{% endwith %}
{% endblock %}"""


def prepare() -> Callable[[], object]:
    django: Any = import_module("django")
    settings: Any = import_module("django.conf").settings
    settings.configure(USE_I18N=False, USE_TZ=False)
    django.setup()
    template: Any = import_module("django.template")
    templates = {"base": _BASE, "row": _ROW, "page": _PAGE}
    engine = template.Engine(
        loaders=[
            (
                "django.template.loaders.cached.Loader",
                [("django.template.loaders.locmem.Loader", templates)],
            )
        ]
    )
    page = engine.get_template("page")
    rows = [
        {
            "cells": [i, i * 3 % 7, f"<b>{i}</b>"],
            "name": f"name of {i}",
            "price": i * 17 % 23 / 2,
            "shown": i % 3,
            "note": f"see https://example.org/{i} & <others>",
        }
        for i in range(200)
    ]

    def iteration() -> object:
        return len(page.render(template.Context({"title": "prices", "rows": rows})))

    return iteration
