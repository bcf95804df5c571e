"""How people see it: tables and progress bars. On a terminal in colour, in a pipe as plain text."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.cli.wiring import notices
from worker.contract import one_line
from worker.outcomes import Tally
from worker.store import views

_STATE_STYLES = {
    "COMPLETED": "green",
    "SUCCESS": "green",
    "FAILED": "red",
    "FAILURE": "red",
    "TIMEOUT": "red",
    "CANCELLED": "yellow",
}


def byte_progress() -> Progress:
    """A bar for work whose size in bytes may be known; nothing where standard error is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notices,
        transient=True,
        disable=not notices.is_terminal,
    )


def tally(result: Tally) -> Table:
    """What came in and what became of it."""
    table = _table("", "", show_header=False)
    document = dict(result.document())
    dead_lettered = document.pop("dead_lettered")
    for name, number in document.items():
        table.add_row(name, f"{number:,}")
    assert isinstance(dead_lettered, Mapping)
    for reason, number in dead_lettered.items():
        table.add_row(f"dead-lettered: {reason}", f"{number:,}")
    return table


def operations(found: Sequence[tuple[views.Operation, views.Progress]]) -> Table:
    """Operations with a progress bar each: how many of their devices are settled."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("operation", min_width=36, no_wrap=True)
    table.add_column("type", max_width=24, no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("progress", ratio=1, min_width=4)
    table.add_column("settled", justify="right", no_wrap=True)
    for operation, progress in found:
        table.add_row(str(operation.id), plain(operation.operation), state(operation.state), *_settled(progress))
    return table


def operation(found: views.Operation, progress: views.Progress) -> Group:
    """One operation with everything that is known of it."""
    facts = _table("", "", show_header=False)
    for name in ("schedule_type", "reason", "created_at", "created_by", "updated_at"):
        value = getattr(found, name)
        facts.add_row(name, time(value) if isinstance(value, datetime) else plain(str(value or "")))
    facts.add_row("history", " > ".join(entry.operation_state for entry in found.operation_activity))
    if progress.expected is not None:
        facts.add_row("devices announced", f"{progress.expected:,}")
    counts = counters(found.operation_stats.device_operation_statuses_count)
    return Group(operations([(found, progress)]), "", facts, "", counts)


def counters(counts: views.DeviceCounts) -> Table:
    """An operation's device counters."""
    table = _table("", "", show_header=False)
    for name, number in counts:
        table.add_row(name, f"{number:,}")
    return table


def device_operations(page: views.Page) -> Table:
    """A page of device operations."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("device", min_width=36, no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("updated", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    for found in page.results:
        table.add_row(str(found.device_id), state(found.state), time(found.updated_at), plain(found.reason))
    return table


def history(entries: Iterable[views.HistoryEntry]) -> Table:
    """Every accepted report of a device operation; those that moved nothing are dimmed."""
    table = _table("when", "reported", "verdict", "service", "reason")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for entry in entries:
        style = "" if entry.verdict == "applied" else "dim"
        table.add_row(
            time(entry.created_at),
            entry.state,
            entry.verdict,
            plain(entry.service_id),
            plain(entry.reason),
            style=style,
        )
    return table


def dead_letters(found: Iterable[views.DeadLetter]) -> Table:
    """Dead letters in a list."""
    table = _table("id", "received", "reason", "detail", "attempts")
    table.columns[0].no_wrap = table.columns[1].no_wrap = table.columns[2].no_wrap = True
    for letter in found:
        table.add_row(
            str(letter.id), time(letter.received_at), letter.reason, plain(letter.detail), str(letter.attempts)
        )
    return table


def dead_letter(letter: views.DeadLetterDetails) -> Table:
    """One dead letter with everything that was kept of it, its body as text."""
    table = _table("", "", show_header=False)
    for name, value in letter:
        shown = time(value) if isinstance(value, datetime) else "" if value is None else value
        table.add_row(name, plain(letter.body_text(value) if name == "body" else str(shown)))
    return table


def settings(values: Mapping[str, str], descriptions: Mapping[str, str]) -> Group:
    """Every setting with its value, and below it what it means."""
    return Group(*(Text(f"{name}={value}\n    {descriptions[name]}") for name, value in values.items()))


def plain(text: str) -> Text:
    """Text from outside: no markup, and nothing that a terminal would obey."""
    return Text("\n".join(map(one_line, text.split("\n"))))


def state(name: str) -> Text:
    """A state's name in its colour."""
    return Text(name, style=_STATE_STYLES.get(name, "cyan"))


def time(moment: datetime) -> str:
    """A time to the second, UTC."""
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _settled(progress: views.Progress) -> tuple[RenderableType, Text]:
    settled = progress.counters.settled_device_count
    total = max(progress.counters.resolved_device_count, progress.expected or 0)
    return ProgressBar(total=total or 1, completed=settled), Text(f"{settled:,}/{total:,}", no_wrap=True)


def _table(*columns: str, show_header: bool = True) -> Table:
    table = Table(box=None, pad_edge=False, show_header=show_header, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
