"""A benchmark's document as tables for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from tests.benchmarks.throughput import CONSUMERS
from tests.support.services import POOLERS

TARGETS = {
    "c/b": "at least 25",
    "c/a": "at least 0.9",
    "d/a": "at least 0.8",
    "e/a": "at least 2",
    "g/c": "at least 1.2",
    "c/a p99 at 1000": "at most 5",
    "rate 1000000/10000": "at least 0.9",
    "read an operation 1000000/1000": "at most 1.2",
    "end/first": "at most 1.1",
    **{f"sessions, PgBouncer {version} / direct": "at least 0.9" for version in POOLERS},
    **{f"transactions, PgBouncer {version} / direct": "at least 0.8" for version in POOLERS},
    "report p99 meanwhile/before": "at most 3",
    "operations / none": "at least 0.95",
    "all / none": "at least 0.7",
    "report p99 with followers/without": "at most 1.5",
    "report p99 with pages/without": "at most 1.5",
    "page with repeated reports p50": "at most 1.2",
    "page with repeated reports p99": "at most 2",
}
"""What the ratios are to reach, on two cores that broker and database share."""


def tables(name: str, document: Mapping[str, Any]) -> Iterator[Table]:
    """Each group of figures: a row for each name in it, a column for each figure of that."""
    for group, figures in document.items():
        if isinstance(figures, Mapping) and figures and group != "conditions":
            if group == "ratios":
                figures = {key: {"": ratio, "target": TARGETS.get(key, "")} for key, ratio in figures.items()}
            yield _table(f"{name}: {group.replace('_', ' ')}", figures)


def conditions(found: Mapping[str, Any]) -> str:
    """What the figures depend on, in a few lines."""
    return "\n".join(f"{name}: {_shown(each)}" for name, each in found.items())


def _table(title: str, figures: Mapping[str, Any]) -> Table:
    rows = {key: figure if isinstance(figure, Mapping) else {"": figure} for key, figure in figures.items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table("", *columns, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for key, row in rows.items():
        label = f"({key}) {CONSUMERS[key]}" if key in CONSUMERS else key
        table.add_row(label, *(_shown(row.get(column, "")) for column in columns))
    return table


def _shown(figure: object) -> str:
    if isinstance(figure, Mapping):
        return ", ".join(f"{name} {_shown(each)}" for name, each in figure.items())
    if isinstance(figure, int):
        return f"{figure:,}"
    if isinstance(figure, float):
        return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.2f}"
    return "cannot keep up" if figure is None else str(figure)
