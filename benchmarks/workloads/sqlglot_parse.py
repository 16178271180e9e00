"""sqlglot: queries parsed, qualified, optimized and written in another dialect."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

TITLE = "sqlglot"
NEEDS = ("sqlglot",)

_SCHEMA = {
    "customer": {"id": "INT", "name": "VARCHAR", "nation": "INT"},
    "orders": {"id": "INT", "customer": "INT", "day": "DATE", "total": "DECIMAL"},
    "nation": {"id": "INT", "name": "VARCHAR"},
}

_QUERIES = (
    """SELECT n.name, SUM(o.total) AS revenue, COUNT(DISTINCT c.id) AS customers
       FROM customer AS c JOIN orders AS o ON o.customer = c.id JOIN nation n ON n.id = c.nation
       WHERE o.day >= DATE '2026-01-01' AND o.day < DATE '2026-01-01' + INTERVAL '1' YEAR
         AND (n.name = 'KENYA' OR n.name = 'PERU')
       GROUP BY n.name HAVING SUM(o.total) > 100 ORDER BY revenue DESC LIMIT 10""",
    """WITH best AS (SELECT customer, MAX(total) AS most, ROW_NUMBER() OVER (PARTITION BY customer
         ORDER BY day DESC) AS place FROM orders GROUP BY customer, day)
       SELECT c.name, CASE WHEN b.most > 5 THEN 'large' ELSE 'small' END AS kind FROM customer c
       LEFT JOIN best b ON b.customer = c.id WHERE b.place = 1 AND EXISTS
         (SELECT 1 FROM orders o WHERE o.customer = c.id AND o.total > 1 + 2 * 3)""",
)

_JOIN = """SELECT c.name, o.total FROM customer c JOIN orders o ON o.customer = c.id
           WHERE o.total > 1 + 2 * 3 AND (c.nation = 1 OR c.nation = 2)"""


def prepare() -> Callable[[], object]:
    sqlglot: Any = import_module("sqlglot")
    optimizer: Any = import_module("sqlglot.optimizer")

    def iteration() -> object:
        written = 0
        for query in _QUERIES:
            tree = sqlglot.parse_one(query, read="postgres")
            written += len(tree.sql(dialect="bigquery", pretty=True))
        best = optimizer.optimize(sqlglot.parse_one(_JOIN), schema=_SCHEMA)
        return written + len(best.sql(dialect="snowflake"))

    return iteration
