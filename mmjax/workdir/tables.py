"""Results as tables: grouped by evaluation and metric, and printed."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import numpy as np

from mmjax.process.printable import printable


def by_rows(results: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Results "evaluation/metric" -> value as row -> metric -> value.

    The part before the last "/", which may include a control of an evaluation, is the row.
    """
    rows: dict[str, dict[str, float]] = {}
    for key, value in results.items():
        name, metric = key.rsplit("/", 1)
        rows.setdefault(name, {})[metric] = value
    return rows


def by_columns(results: Mapping[str, float]) -> list[dict[str, dict[str, float]]]:
    """The rows of `by_rows`, grouped into tables whose rows have the same metrics."""
    tables: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    for name, row in by_rows(results).items():
        tables.setdefault(tuple(row), {})[name] = row
    return list(tables.values())


def print_table(
    rows: Sequence[Mapping[str, Any]], title: str = "", stream: TextIO | None = None
) -> None:
    """Print rows (column -> value) as an aligned table; columns in order of first appearance."""
    stream = sys.stdout if stream is None else stream
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[number(row.get(name, "")) for name in columns] for row in rows]
    right = [all(isinstance(r.get(n, 0), (int, float, np.number)) for r in rows) for n in columns]
    widths = [max(map(len, column)) for column in zip(columns, *cells)]

    def text(row):
        parts = [
            c.rjust(w) if is_right else c.ljust(w) for c, w, is_right in zip(row, widths, right)
        ]
        return "  ".join(parts).rstrip()

    lines = [text(columns), "  ".join("─" * w for w in widths), *map(text, cells)]
    stream.write("\n".join([title, *lines] if title else lines) + "\n")
    stream.flush()


def number(value: Any) -> str:
    """A table cell: floats with four digits, text as one line."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return printable(value)
