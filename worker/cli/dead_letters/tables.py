"""Tables of dead letters: lists, groups, one with its history, the result of a replay."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.cli.tables import numbers, plain, rule, since, table, time
from worker.dead_letters.readable import indented, unpacked
from worker.dead_letters.replay import outcome_documents
from worker.model.outcomes import Reason, Status
from worker.processing.decisions import Outcome
from worker.store import documents


def dead_letters(found: Sequence[documents.DeadLetterSummary], *, has_room: bool) -> Table:
    """A list of dead letters; the status unless all are open, the time where there is room."""
    columns: dict[str, Callable[[documents.DeadLetterSummary], str | Text]] = {
        "id": lambda letter: str(letter.id),
        "received": lambda letter: time(letter.received_at),
        "age": lambda letter: since(letter.received_at),
        "reason": lambda letter: letter.reason,
        "status": lambda letter: letter.status,
    }
    if not has_room:
        del columns["received"]
    if all(letter.status is Status.OPEN for letter in found):
        del columns["status"]
    listing = table(*columns, "detail", "attempts")
    for column in listing.columns[: len(columns)]:
        column.no_wrap = True
    for letter in found:
        cells = [cell(letter) for cell in columns.values()]
        listing.add_row(*cells, plain(letter.detail), str(letter.attempts))
    return listing


def groups(found: Iterable[documents.Group]) -> Table:
    """Numbers of dead letters by a common value."""
    listing = table("count", "", "oldest", "newest")
    listing.columns[0].justify = "right"
    for column in listing.columns[2:]:
        column.no_wrap = True
    for group in found:
        listing.columns[1].header = group.kind
        value = Text("none", style="dim") if group.value is None else plain(str(group.value))
        listing.add_row(f"{group.count:,}", value, time(group.oldest), time(group.newest))
    return listing


def group_document(group: documents.Group) -> Mapping[str, object]:
    """A group as `list --group-by … --json` prints it."""
    return {group.kind: group.value, "count": group.count, "oldest": group.oldest, "newest": group.newest}


def dead_letter(letter: documents.DeadLetterDetails) -> Group:
    """One dead letter with all that was kept; the body as readable as possible."""
    headline = Text.assemble((f"dead letter {letter.id}: {letter.reason}", "bold"), f", {letter.status}")
    facts = table("", "", show_header=False)
    for name, value in _facts(letter):
        facts.add_row(name, plain(time(value) if isinstance(value, datetime) else str(value)))
    removed = f"removed by retention at {time(letter.body_removed_at)}" if letter.body_removed_at else ""
    body = unpacked(letter)
    return Group(
        headline,
        plain(letter.detail),
        *([plain(_allowed(letter))] if letter.reason is Reason.CONFLICT and letter.current_state else []),
        "",
        facts,
        *_section("properties", _document(letter.properties)),
        *_section("headers", _document(letter.headers)),
        *_section(
            "body" if body == letter.body else "body, unpacked",
            removed or indented(body).decode(errors="backslashreplace"),
        ),
        rule("what was done"),
        _history(letter.history),
    )


def _facts(letter: documents.DeadLetterDetails) -> Iterable[tuple[str, object]]:
    facts = {
        "received": letter.received_at,
        "sent": letter.sent_at,
        "closed": letter.resolved_at,
        "attempts": letter.attempts,
        "operation": letter.operation_id,
        "device": letter.device_id,
        "state of the device operation": letter.current_state,
        "service": letter.service_id,
        "report id": letter.report_id,
        "message id": letter.message_id,
        "type": letter.type,
        "exchange": letter.exchange,
        "routing key": letter.routing_key,
        "corrected copy of": letter.corrects,
        "replaced by": ", ".join(map(str, letter.corrected_by)),
    }
    return ((name, value) for name, value in facts.items() if value not in (None, ""))


def _allowed(letter: documents.DeadLetterDetails) -> str:
    allowed = ", ".join(letter.allowed_states or ())
    return (
        f"The device operation is {letter.current_state} now; a report may move it to: {allowed or 'nothing more'}"
    )


def _section(title: str, content: str) -> Iterable[RenderableType]:
    if content:
        yield rule(title)
        yield Padding(plain(content), (0, 0, 0, 2), expand=False)


def _document(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) if document else ""


def _history(entries: Iterable[documents.DeadLetterEntry]) -> Table:
    listing = table("when", "what", "who", "outcome")
    for column in listing.columns[:3]:
        column.no_wrap = True
    for entry in entries:
        outcome = (
            f"{entry.outcome}: {entry.detail}" if entry.outcome and entry.detail else entry.outcome or entry.detail
        )
        listing.add_row(time(entry.at), entry.action, plain(entry.actor or "the worker"), plain(outcome))
    return listing


def replayed(document: Mapping[str, object], ids: Collection[int] | None = None) -> Group:
    """The result of a replay, from the document that --json prints, and what helps with what is still dead.

    `ids` are those of the dead letters that were selected by id.
    """
    counts = dict(document)
    still_dead = counts.pop("still_dead")
    assert isinstance(still_dead, Mapping)
    table_ = numbers(counts | {f"still dead: {reason}": number for reason, number in still_dead.items()})
    if not still_dead:
        return Group(table_)
    id_ = next(iter(ids)) if ids is not None and len(ids) == 1 else "ID"
    hint = f"`deviceops dead-letters show {id_}` shows why, `… edit {id_}` corrects the message"
    return Group(table_, Text(hint, style="dim"))


def outcomes(found: Mapping[int, Outcome]) -> Table:
    """The outcome that each dead letter would have."""
    listing = table("id", "outcome", "detail")
    for document in outcome_documents(found):
        listing.add_row(str(document["id"]), plain(str(document["outcome"])), plain(str(document["detail"])))
    return listing
