"""Parsing: from the bytes of a message to its items, or to what is wrong with them.

`parse` never raises on what a sender wrote: an unreadable message becomes a `Rejected` item.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import pydantic_core
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from worker.model.compression import Unreadable
from worker.model.contract import FIELD, Announcement, AnyReports, LeftOut, Name, Report, Reports
from worker.model.encodings import foreign
from worker.model.findings import problem
from worker.model.identity import NAMESPACE, body_id, device_operation_id, identity
from worker.model.messages import (
    ANNOUNCEMENT,
    MAX_BODY,
    REPORT,
    REPORTS,
    Announced,
    Incoming,
    Message,
    Parsed,
    Rejected,
)
from worker.model.outcomes import Reason
from worker.model.text import one_line, shown
from worker.model.unwrapping import read

_aliases: dict[str, str] = {}
"""Other names of message types, from the settings; global, as every parser of a process has the same."""

_report = TypeAdapter(Report)
_announcement = TypeAdapter(Announcement)
_reports = TypeAdapter(AnyReports)
NAMING: Mapping[str, TypeAdapter[UUID | str]] = {
    "operation_id": TypeAdapter(UUID),
    "device_id": TypeAdapter(UUID),
    "service_id": TypeAdapter(Name),
}
"""The ids in a report, and how to read them from a document that is not a valid report."""


def parse(message: Message) -> list[Parsed]:
    """Read one message: its report or announcement, each of its reports, or what is wrong with it."""
    if message.abandoned is not None:
        return [Rejected(message.abandoned, message, Reason.UNDELIVERABLE)]
    if len(message.body) > MAX_BODY:
        return [Rejected(f"body: is larger than {MAX_BODY:,} bytes", message)]
    try:
        reading = read(message)
    except Unreadable as error:
        return [Rejected(str(error), message)]
    name = reading.type or REPORT
    type_ = TYPES.get(_aliases.get(name, name))
    if type_ is None:
        return [Rejected(f"type: {shown(name)} is not a message type (expected {', '.join(TYPES)})", message)]
    return type_.parse(reading, message)


def set_aliases(names: Mapping[str, str]) -> None:
    """Set the other names of message types that this process accepts, each with the type's own name."""
    _aliases.clear()
    _aliases.update(names)


def named_in(message: Message) -> Mapping[str, UUID | str]:
    """The ids that a rejected message names, as far as they are readable.

    What the broker gave up may be as readable as any; of many reports it is what all of them name.
    """
    if message.is_bare:
        return {}
    items = [] if message.abandoned is None else parse(replace(message, abandoned=None, dead_letter_id=None))
    named = [set(_named(item).items()) for item in items if not isinstance(item, Rejected)]
    return dict(set.intersection(*named)) if named else _named_in_body(message)


def operation_of(message: Message) -> UUID | None:
    """The operation that a message is about; None if it names none, or several."""
    named = {_named(item)["operation_id"] for item in parse(message) if not isinstance(item, Rejected)}
    found = named.pop() if len(named) == 1 else None if named else _named_in_body(message).get("operation_id")
    return found if isinstance(found, UUID) else None


def _named(item: Incoming | Announced) -> Mapping[str, UUID | str]:
    if isinstance(item, Announced):
        return {"operation_id": item.announcement.id}
    return {name: getattr(item.report, name) for name in NAMING}


def _named_in_body(message: Message) -> Mapping[str, UUID | str]:
    if len(message.body) > MAX_BODY:
        return {}
    try:
        message = read(message)
        document = pydantic_core.from_json(message.body)
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    if message.type == ANNOUNCEMENT:
        document = {"operation_id": document.get("id")}
    named: dict[str, UUID | str] = {}
    for field_name, adapter in NAMING.items():
        try:
            named[field_name] = adapter.validate_python(document.get(field_name))
        except ValidationError:
            continue
    return named


def _parse_report(reading: Message, message: Message) -> list[Parsed]:
    return [_report_item(reading, message)]


def _report_item(reading: Message, message: Message) -> Incoming | Rejected:
    try:
        report = _report.validate_json(reading.body)
    except ValidationError as error:
        return Rejected(_unreadable(error, reading.body) + _meant(reading), message)
    return _incoming(report, reading, message)


def _meant(reading: Message) -> str:
    """A hint for the sender of a message without a type that is not a report."""
    type_ = type_of_untyped(reading)
    return f"; was it to be of type {type_}?" if type_ else ""


def type_of_untyped(reading: Message) -> str | None:
    """The type that a message without one seems to be of, by its fields; None if it may be a report."""
    if reading.type:
        return None
    with suppress(ValueError):
        document = pydantic_core.from_json(reading.body)
        if isinstance(document, dict) and "operation_id" not in document:
            types = (type_.name for type_ in TYPES.values() if not type_.own_fields.isdisjoint(document))
            return next(types, None)
    return None


def _incoming(report: Report, reading: Message, message: Message) -> Incoming:
    at, note = report.occurred_at, None
    if isinstance(at, LeftOut) or isinstance(report.code, LeftOut):
        fields = {"occurred_at": at, "code": report.code}
        note = _note({name: value.value for name, value in fields.items() if isinstance(value, LeftOut)})
    if at is None or isinstance(at, LeftOut):
        at = reading.sent_at or message.received_at
    return Incoming(
        report,
        (
            device_operation_id(report.operation_id, report.device_id),
            identity(report.report_id) or _identity(reading, message),
        ),
        at,
        message,
        note,
    )


def _identity(reading: Message, message: Message) -> str:
    return identity(reading.message_id) or body_id(message.body)


def _parse_announcement(reading: Message, message: Message) -> list[Parsed]:
    try:
        announcement = _announcement.validate_json(reading.body)
    except ValidationError as error:
        return [Rejected(_unreadable(error, reading.body), message)]
    at = announcement.created_at or reading.sent_at or message.received_at
    # An id of its own kind: a report may have the same message id as the announcement.
    own = _identity(reading, message)
    report_id = str(uuid5(NAMESPACE, f"announcement {own}"))
    key = (announcement.id, own) if identity(reading.message_id) else None
    return [Announced(announcement, key, report_id, at, message, note=_note(announcement.left_out))]


def _note(left_out: Mapping[str, object]) -> str | None:
    if not left_out:
        return None
    return one_line(
        "; ".join(f"{name} {shown(value)} cannot be read, and is left out" for name, value in left_out.items())
    )


def _parse_reports(reading: Message, message: Message) -> list[Parsed]:
    body = reading.body
    try:
        reports = _reports.validate_json(body).reports
    except ValidationError as error:
        return [Rejected(_unreadable(error, body), message)]
    if not reports and message.dead_letter_id is not None:
        return [Rejected("reports: has none", message)]  # a stored message needs an outcome
    # Not the body: many decompressed ones would be held while they are processed.
    bodies = cache(lambda: pydantic_core.from_json(read(message).body)["reports"])
    parts = _parts(reading, message, len(reports), bodies)
    return [
        _incoming(report, part, part) if isinstance(report, Report) else _report_item(part, part)
        for report, part in zip(reports, parts, strict=True)
    ]


def _parts(reading: Message, message: Message, count: int, bodies: Callable[[], list[Any]]) -> list[Message]:
    """Each report of a bulk message as its own message, which can be kept and replayed separately."""
    base = _identity(reading, message)
    return [
        Message(
            partial(_body_of_part, bodies, index),
            message.received_at,
            f"{base}/{index}",
            REPORT,
            reading.sent_at,
            reading.origin,
            part_of=message.dead_letter_id,
            is_last_part=index == count - 1,
            is_republished=message.is_republished,
            is_plain=True,
        )
        for index in range(count)
    ]


def _body_of_part(bodies: Callable[[], list[Any]], index: int) -> bytes:
    return pydantic_core.to_json(bodies()[index])


def _unreadable(error: ValidationError, body: bytes) -> str:
    """What is wrong with a body; for one that is not JSON in UTF-8, its format."""
    if error.errors(include_url=False, include_context=False, include_input=False)[0]["type"] != "json_invalid":
        return describe_invalid(error)
    if not body:
        return "body: is empty"
    found = foreign(body)
    if found is None:
        try:
            body.decode()
        except UnicodeDecodeError:
            found = "not UTF-8"
    if found is None:
        return describe_invalid(error)
    if found.startswith("compressed"):
        return f"body: is {found}, which content_encoding does not say; gzip and deflate are read"
    return f"body: is {found}, and has to be JSON in UTF-8"


def describe_invalid(error: ValidationError) -> str:
    """What is wrong with a document, in one line, at most three findings."""
    findings = error.errors(include_url=False)
    told = [f"{_location(finding)}: {problem(finding)}" for finding in findings[:3]]
    if len(findings) > len(told):
        told.append(f"and {len(findings) - len(told)} more")
    return one_line("; ".join(told))


def _location(finding: ErrorDetails) -> str:
    of_model = finding.get("ctx", {}).get(FIELD, "body")
    return ".".join(map(str, finding["loc"])) or of_model


class MessageType(NamedTuple):
    """A message type: all that parsing, the contract and the command line know of it."""

    name: str
    """The AMQP property `type`."""
    short_name: str
    """In the AsyncAPI document."""
    title: str
    model: type[BaseModel]
    """Of its body."""
    parse: Callable[[Message, Message], list[Parsed]]
    """Makes items of the message as plain JSON, and of the message as it came."""
    own_fields: frozenset[str] = frozenset()
    """Fields that only this type has, to recognise a message that lacks its type."""


TYPES: Mapping[str, MessageType] = {
    each.name: each
    for each in (
        MessageType(REPORT, "report", "The state of one device operation", Report, _parse_report),
        MessageType(
            REPORTS, "reports", "Many reports in one message", Reports, _parse_reports, frozenset({"reports"})
        ),
        MessageType(
            ANNOUNCEMENT,
            "announcement",
            "An operation, and the devices that it targets",
            Announcement,
            _parse_announcement,
            frozenset({"device_ids", "device_count"}),
        ),
    )
}
"""Every message type, by name. A message without a type is a report."""
