"""Rows of an export as text: CSV (RFC 4180), or JSON lines in ASCII, which no reader splits at other line ends."""

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from io import StringIO
from json.encoder import encode_basestring_ascii as quoted
from typing import Any
from uuid import UUID

from statemachine import State
from worker.model import state_times
from worker.store.documents import DeviceCounts, Operation

DEVICE_COLUMNS = (
    *("device_id", "state", "code", "reason", "service_id", "dispatched", "created_at", "updated_at"),
    *("operation_id", "id"),
)
OPERATION_COLUMNS = (
    *("id", "operation", "state", "reason", "schedule_type"),
    *("created_at", "created_by", "updated_at", "updated_by"),
    *DeviceCounts.model_fields,
)
_ENTRIES = {state: f'{{"device_operation_state":"{state.name}","created_at":"' for state in State}
_NAMES = {state.value: state.name for state in State}
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class Format(StrEnum):
    """How an export is written."""

    CSV = "csv"
    JSONL = "jsonl"


def defused(cell: str) -> str:
    """A cell's text that no spreadsheet takes for a formula: an apostrophe stands before one.

    As OWASP has it for "CSV Injection", with the full-width forms of the characters.
    """
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Rows of cells as CSV; None is an empty cell."""
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


READ = (
    *("id", "device_id", "state", "dispatched", "reason", "code", "service_id"),
    *("created_at", "updated_at", "reached"),
)
"""What lines of device operations are made of; times are in UTC, with a time zone or without."""


def device_operations_as_csv(operation_id: UUID, rows: Iterable[Sequence[Any]]) -> str:
    """An operation's device operations, rows with the values of `READ`, in the columns of `DEVICE_COLUMNS`."""
    operation = str(operation_id)
    return csv_lines(
        (
            device,
            _NAMES[state],
            defused(code or ""),
            defused(reason),
            defused(service or ""),
            "true" if dispatched else "false",
            _time(created_at),
            _time(updated_at),
            operation,
            id_,
        )
        for id_, device, state, dispatched, reason, code, service, created_at, updated_at, _ in rows
    )


def device_operations_as_json(operation_id: UUID, rows: Iterable[Sequence[Any]]) -> str:
    """Rows of the same as their documents in the API, with the code and the service of the state's report.

    Without a model for each row, which would take several times as long.
    """
    operation = str(operation_id)
    return "".join(
        f'{{"id":"{id_}","operation_id":"{operation}","device_id":"{device}","state":"{_NAMES[state]}",'
        f'"reason":{quoted(reason)},"created_at":"{_time(created_at)}","updated_at":"{_time(updated_at)}",'
        f'"device_operation_activity":[{_history(reached, state, created_at, updated_at)}],'
        f'"code":{"null" if code is None else quoted(code)},'
        f'"service_id":{"null" if service is None else quoted(service)},'
        f'"dispatched":{"true" if dispatched else "false"}}}\n'
        for id_, device, state, dispatched, reason, code, service, created_at, updated_at, reached in rows
    )


def operations_as_csv(found: Iterable[Operation]) -> str:
    """Operations with the columns of `OPERATION_COLUMNS`."""
    return csv_lines(
        (
            each.id,
            defused(each.operation),
            each.state,
            defused(each.reason),
            defused(each.schedule_type or ""),
            _time(each.created_at),
            each.created_by,
            _time(each.updated_at),
            each.updated_by,
            *each.operation_stats.device_operation_statuses_count.model_dump().values(),
        )
        for each in found
    )


def operations_as_json(found: Iterable[Operation]) -> str:
    """Operations as their documents in the API."""
    return "".join(json.dumps(each.model_dump(mode="json"), separators=(",", ":")) + "\n" for each in found)


def _history(reached: str, state: int, created_at: datetime, updated_at: datetime) -> str:
    """The entries of a history, from the text of `state_times`."""
    times = state_times.read_microseconds(reached)
    if State.CREATED not in times or state not in times:
        complete = state_times.complete(reached, State(state), _aware(created_at), _aware(updated_at))
        return ",".join(f'{_ENTRIES[each]}{_time(at)}"}}' for each, at in complete.items())
    return ",".join([f'{_ENTRIES[each]}{_time_of(times[each])}"}}' for each in state_times.ORDER if each in times])


def _time(at: datetime) -> str:
    """A time in UTC as documents have it."""
    return f"{at.isoformat().removesuffix('+00:00')}Z"


def _time_of(microseconds: int) -> str:
    """The same of the microseconds since the year 1."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{rest:06}Z" if rest else f"{_second(seconds)}Z"


@lru_cache(maxsize=10_000)
def _second(seconds: int) -> str:
    """A second since the year 1; the rows of an export share most of them."""
    return (datetime.min + timedelta(seconds=seconds)).isoformat()  # noqa: DTZ901  # in UTC


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
