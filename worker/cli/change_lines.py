"""Lines of `deviceops changes`: JSON for programs, text for people."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import from_json, to_json

from worker.cli import tables
from worker.model.changes import ChangeType
from worker.model.text import one_line
from worker.store.change_log import LoggedChange

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_WIDTH = max(map(len, ChangeType))


def as_json(change: LoggedChange) -> str:
    """A change as JSON, with its body as it stands."""
    of_dead_letters = change.type == ChangeType.DEAD_LETTERS_ADDED
    envelope = {
        "position": change.position,
        "id": change.id,
        "type": change.type,
        "routing_key": change.routing_key,
        "operation_id": from_json(change.payload)["operation_id"] if of_dead_letters else change.aggregateid,
        "sequence": change.sequence,
        "recorded_at": _recorded_at(change),
    }
    return f'{to_json(envelope).decode()[:-1]},"data":{change.payload}}}'


def as_text(change: LoggedChange) -> str:
    """A change for people: when, what, of which operation, and the numbers in short."""
    body = from_json(change.payload)
    of = body["operation_id"] or "-"
    return one_line(
        f"{tables.time(_recorded_at(change))} {change.type:{_WIDTH}} {of:36} {_in_short(change.type, body)}"
    )


def _recorded_at(change: LoggedChange) -> datetime:
    return _FIRST + timedelta(milliseconds=change.recorded_at)


def _in_short(change_type: str, body: Mapping[str, Any]) -> str:
    if change_type == ChangeType.OPERATION_CHANGED:
        counters = body["counters"]
        failed = counters["failed_device_count"] + counters["dispatch_failed_count"]
        of = f"{counters['resolved_device_count']:,} devices"
        return f"{body['state']}: {counters['success_device_count']:,} succeeded, {failed:,} failed, of {of}"
    if change_type == ChangeType.OPERATION_ABORTED:
        return f"{body['action']}: {body['reason']}"
    if change_type == ChangeType.DEVICE_OPERATIONS_CHANGED:
        states = Counter(each["state"] for each in body["changes"])
        return ", ".join(f"{count:,} {state}" for state, count in states.items()) or "none"
    if change_type == ChangeType.DEAD_LETTERS_ADDED:
        return f"{body['count']:,} {body['reason']}"
    return ""  # of a newer version
