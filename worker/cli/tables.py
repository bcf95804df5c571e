"""Tables and progress bars: in colour on a terminal, plain text in a pipe."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Self
from uuid import UUID

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
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
from rich.rule import Rule
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from statemachine import Counters, Expiry, State
from worker.cli.common import notices, print_json, screen
from worker.log_writer import writer
from worker.model.outcomes import Tally
from worker.model.pace import Pace
from worker.model.text import one_line
from worker.model.timing import in_words, moment
from worker.store import documents
from worker.store.due import Shown

_STATE_STYLES = {
    "COMPLETED": "green",
    "SUCCESS": "green",
    "FAILED": "red",
    "FAILURE": "red",
    "TIMEOUT": "red",
    "CANCELLED": "yellow",
}


NARROWEST_BAR = 8
"""Minimum width of a progress bar."""
NARROWEST_REASON = 11
"""Minimum width of a reason: what 80 columns have room for beside a device operation."""
NARROW = 120
"""Columns of a terminal below which `reasons` omits when a group began."""
_EXTRA = ("type", "progress")
"""Columns that are omitted in a narrow terminal."""
_NUMBERS = ("success", "failed", "cancelled", "devices", "total")

SHOWN_STATES = 20
"""Number of an operation's latest states that are shown."""


@contextmanager
def counting(doing: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A progress bar of counts; returns the function that receives each step's count."""
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, TimeElapsedColumn(), console=notices, transient=True, disable=not notices.is_terminal)
    with _drawn(bar):
        task = bar.add_task(doing, total=total)
        yield lambda number: bar.advance(task, number)


def byte_progress() -> AbstractContextManager[Progress]:
    """A progress bar in bytes; nothing if standard error is not a terminal."""
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
    """A progress bar that is erased before the result is printed."""
    try:
        with bar:
            yield bar
    finally:
        if not bar.disable:
            writer.flush()


def tally(result: Tally) -> Table:
    """Messages received, and their outcomes."""
    counts = dict(result.document())
    dead_lettered = counts.pop("dead_lettered")
    assert isinstance(dead_lettered, Mapping)
    return numbers(counts | {f"dead-lettered: {reason}": number for reason, number in dead_lettered.items()})


def show_tally(result: Tally, json: bool) -> None:
    """Print a tally, as a JSON document if asked."""
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
    """Operations with their numbers of devices, and where there is room with a progress bar and the type."""
    numbered = [_Settled.of(progress) for _, progress in found]
    columns: dict[str, list[RenderableType]] = {
        "operation": [Text(str(operation.id)) for operation, _ in found],
        "type": [plain(operation.operation) for operation, _ in found],
        "state": [state(operation.state) for operation, _ in found],
        "progress": [_Bar(each) for each in numbered],
        "success": [_count(each.success, "green") for each in numbered],
        "failed": [_count(each.failed, "red") for each in numbered],
        "cancelled": [_count(each.cancelled, "yellow") for each in numbered],
        "devices": [_count(each.total, "") for each in numbered],
    }
    if not any(each.cancelled for each in numbered):
        del columns["cancelled"]
    room = screen.width - sum(_width(name, cells) + 1 for name, cells in columns.items() if name not in _EXTRA)
    if room < 0:
        columns["total"] = columns.pop("devices")  # 80 columns have room for two characters less
    if not screen.is_terminal or room < NARROWEST_BAR:
        del columns["progress"]
    else:
        room -= NARROWEST_BAR + 1
    if room < _width("type", columns["type"]):
        del columns["type"]
    listing = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", expand=screen.is_terminal)
    for name, cells in columns.items():
        width = NARROWEST_BAR if name == "progress" else _width(name, cells)
        justify: Literal["left", "right"] = "right" if name in _NUMBERS else "left"
        ratio = 1 if name == "progress" else None
        listing.add_column(name, justify=justify, no_wrap=True, min_width=width, ratio=ratio)
    for row in zip(*columns.values(), strict=True):
        listing.add_row(*row)
    return listing


def operation(
    found: documents.Operation,
    progress: documents.Progress,
    shown: Shown | None = None,
    going: Pace | None = None,
    causes: tuple[Sequence[documents.ReasonGroup], int] = ((), 0),
) -> Group:
    """One operation with all its fields; `causes` are its largest groups of causes, and the number of all."""
    facts = table("", "", show_header=False)
    for name in ("schedule_type", "reason", "created_at", "created_by", "updated_at"):
        value = getattr(found, name)
        facts.add_row(name, time(value) if isinstance(value, datetime) else plain(str(value or "")))
    if (retried := found.operation_device_query.get("retry_of")) is not None:
        facts.add_row("retry of", plain(str(retried)))
    states = [entry.operation_state for entry in found.operation_activity]
    facts.add_row("history", " > ".join([*["…"][: len(states) > SHOWN_STATES], *states[-SHOWN_STATES:]]))
    if progress.expected is not None:
        facts.add_row("devices announced", f"{progress.expected:,}")
    if going is not None:
        for name, value in _pace(going):
            facts.add_row(name, value)
    if shown is not None:
        for name, value in _timing(shown):
            facts.add_row(name, plain(value))
    counts = found.operation_stats.device_operation_statuses_count.model_dump()
    if cancelled := _Settled.of(progress).cancelled:
        counts["cancelled"] = cancelled
    groups, number = causes
    below: list[RenderableType] = ["", reasons(groups, progress.counters)] if groups else []
    if len(groups) < number:
        below.append(largest_shown(len(groups), number, "`deviceops reasons` shows more"))
    return Group(operations([(found, progress)]), "", facts, "", numbers(counts), *below)


def reasons(found: Iterable[documents.ReasonGroup], counters: Counters) -> Table:
    """Groups of device operations that did not succeed, with their share of those in their state."""
    first = [] if screen.width < NARROW else ["first"]
    listing = table("state", "devices", "share", "code", "reason", *first, "last")
    listing.columns[1].justify = listing.columns[2].justify = "right"
    for group in found:
        of_state = counters.in_state(State[group.state])
        named = group.reason or group.code
        listing.add_row(
            state(group.state),
            f"{group.count:,}",
            f"{group.count / of_state:.0%}" if of_state else "",
            plain(group.code or ""),
            plain(group.reason) if named else Text("none given", style="dim"),
            *[time(group.first_at) for _ in first],
            time(group.last_at),
        )
    return listing


def largest_shown(shown: int, count: int, how: str) -> Text:
    """How many of the groups are shown, and how to see more."""
    return Text(f"the largest {shown:,} of {count:,} groups; {how}", style="dim")


def _pace(going: Pace) -> Iterator[tuple[str, Text]]:
    """What there is to say of how an operation goes."""
    if going.rate:
        yield "rate", Text(f"{going.rate:,.3g} a minute" if going.rate < 1_000 else f"{going.rate:,.0f} a minute")
    if going.eta is not None:
        yield "settled by", Text(f"{time(going.eta)}, in {since(going.eta)}")
    if going.stalled_since is not None:
        ago = since(going.stalled_since)
        yield "stalled", Text(f"nothing has moved since {time(going.stalled_since)}, {ago} ago", style="yellow")


def _timing(shown: Shown) -> Iterator[tuple[str, str]]:
    """What there is to say of an operation's timeouts and its abort threshold."""
    if shown.timeouts is not None:
        named = shown.timeouts._asdict()
        at = named.pop("deadline")
        said = [f"{kind} {in_words(value)}" for kind, value in named.items() if value is not None]
        yield "timeouts", ", ".join([*said, *([] if at is None else [f"deadline {time(moment(at))}"])])
    if shown.next_at is not None:
        is_over = shown.next_at <= datetime.now(UTC)
        yield "next timeout", f"{time(shown.next_at)}, {'due' if is_over else 'in ' + since(shown.next_at)}"
    if shown.timed_out:
        yield "timed out", ", ".join(f"{kind or 'by a report'} {n:,}" for kind, n in shown.timed_out.items())
    if (threshold := shown.threshold) is not None:
        limit = f"{threshold.failed_percent:g}% of at least {threshold.min_settled:,} settled: {threshold.action}"
        tripped = shown.tripped
        found = (
            "not crossed"
            if tripped is None
            else f"crossed {time(tripped.at)}, {tripped.failed:,} of {tripped.settled:,} had failed"
        )
        yield "abort threshold", f"{limit}; {found}"


def counters(counts: documents.DeviceCounts) -> Table:
    """An operation's device counters."""
    return numbers(counts.model_dump())


def device_operations(found: Iterable[documents.DeviceOperation], codes: Mapping[UUID, str]) -> Table:
    """A page of device operations, a line each; with the codes of the reports that moved them to their states."""
    listing = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    widths = {"device": 36, "state": max(len(each.name) for each in State), "updated": 20}
    for name, width in widths.items():
        listing.add_column(name, min_width=width, no_wrap=True)
    # Without a limit, a long reason would take the room of the columns before it.
    room = max(screen.width - sum(width + 1 for width in widths.values()), NARROWEST_REASON)
    listing.add_column("code/reason" if codes else "reason", max_width=room, no_wrap=True)
    for each in found:
        why = ": ".join(filter(None, (codes.get(each.id), each.reason.replace("\n", " "))))
        listing.add_row(str(each.device_id), state(each.state), time(each.updated_at), plain(why))
    return listing


def device_operation(found: documents.DeviceOperation, expiry: Expiry | None = None) -> Table:
    """One device operation: its ids, its state, and the reason."""
    facts = table("", "", show_header=False)
    facts.columns[0].no_wrap = True
    facts.add_row("operation", str(found.operation_id))
    facts.add_row("device", str(found.device_id))
    facts.add_row("device operation", str(found.id))
    facts.add_row("state", state(found.state))
    if found.reason:
        facts.add_row("reason", plain(found.reason))
    if expiry is not None:
        facts.add_row("times out", f"{time(moment(expiry.at))} ({expiry.kind})")
    return facts


def range_shown(offset: int, shown: int, count: int, *, is_more: bool = False) -> Text:
    """Which rows of a list are shown, and how to see others; with `is_more` there may be more than `count`."""
    others = "; --offset and --limit show others" if shown < count else ""
    total = f"{count:,} or more" if is_more else f"{count:,}"
    if shown:
        return Text(f"{offset + 1:,} to {offset + shown:,} of {total}{others}", style="dim")
    return Text(f"none after the first {offset:,}, of {total} in all{others}" if count else "none", style="dim")


def reports(found: Iterable[documents.AcceptedReport]) -> Table:
    """Accepted reports of a device operation; those that changed no state are dimmed."""
    listing = table("when", "reported", "verdict", "service", "code", "reason", "note")
    listing.columns[0].no_wrap = listing.columns[1].no_wrap = True
    for report in found:
        style = "" if report.verdict == "applied" else "dim"
        listing.add_row(
            time(report.created_at),
            report.state,
            report.verdict,
            plain(report.service_id),
            plain(report.code or ""),
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


def settings(values: Mapping[str, str], origins: Mapping[str, str], descriptions: Mapping[str, str]) -> Table:
    """Every setting with its value and its origin, what was set first; with meanings if they are given."""
    listing = table("setting", "value", "from", *(["meaning"] if descriptions else []))
    listing.columns[0].no_wrap = True
    for name in sorted(values, key=lambda name: name not in origins):
        style = "" if name in origins else "dim"
        meaning = [descriptions[name]] if descriptions else []
        listing.add_row(name, plain(values[name]), origins.get(name, "default"), *meaning, style=style)
    return listing


def plain(text: str) -> Text:
    """Text from outside: without markup and control characters."""
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


class _Settled(NamedTuple):
    """Numbers of an operation's devices: succeeded, failed (before or after dispatch), cancelled, all."""

    success: int
    failed: int
    cancelled: int
    total: int

    @classmethod
    def of(cls, progress: documents.Progress) -> Self:
        counters = progress.counters
        failed = counters.failed_device_count + counters.dispatch_failed_count
        cancelled = counters.settled_device_count - counters.success_device_count - failed
        total = max(counters.resolved_device_count, progress.expected or 0)
        return cls(counters.success_device_count, failed, cancelled, total)


class _Bar:
    """A progress bar with a part for success, failure and cancellation each."""

    def __init__(self, settled: _Settled) -> None:
        self._settled = settled

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, total = options.max_width, self._settled.total or 1
        sign = "-" if options.ascii_only else "━"
        drawn = 0
        reached = 0
        for count, color in zip(self._settled, ("green", "red", "yellow"), strict=False):
            reached += count
            # A non-empty part is visible, and only a complete operation fills the bar.
            until = max(reached * width // total, drawn + bool(count))
            yield Segment(sign * (min(until, width) - drawn), Style(color=color))
            drawn = min(until, width)
        yield Segment(" " * (width - drawn) if console.no_color else sign * (width - drawn), Style(dim=True))


def rule(title: str) -> RenderableType:
    """A line with a title; as wide as a terminal."""
    return Constrain(Rule(title, align="left", style="dim"), screen.width if screen.is_terminal else 80)


def _count(number: int, style: str) -> Text:
    return Text(f"{number:,}", style=style if number else "dim")


def _width(name: str, cells: Iterable[RenderableType]) -> int:
    return max(len(name), *(cell.cell_len for cell in cells if isinstance(cell, Text)), 0)


def table(*columns: str, show_header: bool = True) -> Table:
    """An empty table; what does not fit is folded."""
    empty = Table(box=None, pad_edge=False, show_header=show_header, header_style="bold")
    for column in columns:
        empty.add_column(column, overflow="fold")
    return empty
