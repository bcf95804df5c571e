"""How people see it: tables and progress bars. On a terminal in colour, in a pipe as plain text."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.cli.common import notices, print_json, screen
from worker.log_writer import writer
from worker.model.outcomes import Tally
from worker.model.text import one_line
from worker.store import documents

_STATE_STYLES = {
    "COMPLETED": "green",
    "SUCCESS": "green",
    "FAILED": "red",
    "FAILURE": "red",
    "TIMEOUT": "red",
    "CANCELLED": "yellow",
}


SHOWN_STATES = 20
"""The latest states of an operation that fit."""


@contextmanager
def counting(doing: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A bar for things that are counted; gives what is to be told of each step's number."""
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, TimeElapsedColumn(), console=notices, transient=True, disable=not notices.is_terminal)
    with _drawn(bar):
        task = bar.add_task(doing, total=total)
        yield lambda number: bar.advance(task, number)


def byte_progress() -> AbstractContextManager[Progress]:
    """A bar for work whose size in bytes may be known; nothing where standard error is no terminal."""
    bar = Progress(
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
    return _drawn(bar)


@contextmanager
def _drawn(bar: Progress) -> Iterator[Progress]:
    """A bar that is gone at the end, before standard output shows what came of the work."""
    try:
        with bar:
            yield bar
    finally:
        if not bar.disable:
            writer.flush()


def tally(result: Tally) -> Table:
    """What came in and what became of it."""
    counts = dict(result.document())
    dead_lettered = counts.pop("dead_lettered")
    assert isinstance(dead_lettered, Mapping)
    return numbers(counts | {f"dead-lettered: {reason}": number for reason, number in dead_lettered.items()})


def show_tally(result: Tally, json: bool) -> None:
    """Print it, as a document if that is asked for."""
    if json:
        print_json(result.document())
    else:
        screen.print(tally(result))


def numbers(counts: Mapping[str, object]) -> Table:
    """Numbers with their names."""
    listing = table("", "", show_header=False)
    for name, number in counts.items():
        listing.add_row(name, f"{number:,}")
    return listing


def operations(found: Sequence[tuple[documents.Operation, documents.Progress]]) -> Table:
    """Operations with a progress bar each: how many of their devices are settled."""
    listing = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    listing.add_column("operation", min_width=36, no_wrap=True)
    listing.add_column("type", max_width=24, no_wrap=True)
    listing.add_column("state", no_wrap=True)
    listing.add_column("progress", ratio=1, min_width=4)
    listing.add_column("settled", justify="right", no_wrap=True)
    for operation, progress in found:
        listing.add_row(str(operation.id), plain(operation.operation), state(operation.state), *_settled(progress))
    return listing


def operation(found: documents.Operation, progress: documents.Progress) -> Group:
    """One operation with everything that is known of it."""
    facts = table("", "", show_header=False)
    for name in ("schedule_type", "reason", "created_at", "created_by", "updated_at"):
        value = getattr(found, name)
        facts.add_row(name, time(value) if isinstance(value, datetime) else plain(str(value or "")))
    states = [entry.operation_state for entry in found.operation_activity]
    facts.add_row("history", " > ".join([*["…"][: len(states) > SHOWN_STATES], *states[-SHOWN_STATES:]]))
    if progress.expected is not None:
        facts.add_row("devices announced", f"{progress.expected:,}")
    counts = counters(found.operation_stats.device_operation_statuses_count)
    return Group(operations([(found, progress)]), "", facts, "", counts)


def counters(counts: documents.DeviceCounts) -> Table:
    """An operation's device counters."""
    return numbers(counts.model_dump())


def device_operations(found: Iterable[documents.DeviceOperation]) -> Table:
    """A page of device operations."""
    listing = Table(box=None, pad_edge=False, header_style="bold")
    listing.add_column("device", min_width=36, no_wrap=True)
    listing.add_column("state", no_wrap=True)
    listing.add_column("updated", no_wrap=True)
    listing.add_column("reason", no_wrap=True)
    for each in found:
        listing.add_row(str(each.device_id), state(each.state), time(each.updated_at), plain(each.reason))
    return listing


def reports(found: Iterable[documents.AcceptedReport]) -> Table:
    """Accepted reports of a device operation; those that moved nothing are dimmed."""
    listing = table("when", "reported", "verdict", "service", "reason", "note")
    listing.columns[0].no_wrap = listing.columns[1].no_wrap = True
    for report in found:
        style = "" if report.verdict == "applied" else "dim"
        listing.add_row(
            time(report.created_at),
            report.state,
            report.verdict,
            plain(report.service_id),
            plain(report.reason),
            plain(report.note or ""),
            style=style,
        )
    return listing


def parked(found: Iterable[documents.Parked]) -> Table:
    """How many reports wait for a registration, of which operation, and since when."""
    listing = table("operation", "parked", "stale", "the oldest waits")
    for group in found:
        stale = Text(f"{group.stale:,}", style="yellow" if group.stale else "")
        listing.add_row(str(group.operation_id), f"{group.count:,}", stale, since(group.oldest))
    return listing


def settings(values: Mapping[str, str], origins: Mapping[str, str], descriptions: Mapping[str, str]) -> Group:
    """Every setting with its value, where that comes from unless it is the default, and below what it means."""
    return Group(
        *(
            Text.assemble(
                f"{name}={value}",
                (f"  from {origins[name]}" if name in origins else "", "dim"),
                f"\n    {descriptions[name]}",
            )
            for name, value in values.items()
        )
    )


def plain(text: str) -> Text:
    """Text from outside: no markup, and nothing that a terminal would obey."""
    return Text("\n".join(map(one_line, text.split("\n"))))


def state(name: str) -> Text:
    """A state's name in its colour."""
    return Text(name, style=_STATE_STYLES.get(name, "cyan"))


def time(moment: datetime) -> str:
    """A time to the second, UTC."""
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def since(moment: datetime) -> str:
    """How long ago a time was, about."""
    import humanize

    return humanize.naturaldelta(datetime.now(UTC) - moment)


def _settled(progress: documents.Progress) -> tuple[RenderableType, Text]:
    settled = progress.counters.settled_device_count
    total = max(progress.counters.resolved_device_count, progress.expected or 0)
    return ProgressBar(total=total or 1, completed=settled), Text(f"{settled:,}/{total:,}", no_wrap=True)


def table(*columns: str, show_header: bool = True) -> Table:
    """An empty table in our style; what does not fit is folded."""
    empty = Table(box=None, pad_edge=False, show_header=show_header, header_style="bold")
    for column in columns:
        empty.add_column(column, overflow="fold")
    return empty
