"""Messages and their identity: from bytes to typed items, or to what is wrong with them.

`parse` never raises on what a sender wrote: an unreadable message becomes a `Rejected` item.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha1
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid5

import pydantic_core
from asyncpg.pgproto.pgproto import UUID as DriverUUID  # noqa: N811  # a class
from pydantic import TypeAdapter, ValidationError

from worker.model.cloudevents import PREFIXES, STRUCTURED, read_event
from worker.model.compression import Unreadable, unpacked
from worker.model.contract import Announcement, AnyReports, LeftOut, Name, Report
from worker.model.encodings import BOM, foreign
from worker.model.identity import NAMESPACE, body_id, identity
from worker.model.outcomes import Reason
from worker.model.surrogates import whole
from worker.model.text import one_line, shown

REPORT = "device-operation.report"
REPORTS = "device-operation.reports"
ANNOUNCEMENT = "operation.announced"
MessageType = Literal["device-operation.report", "device-operation.reports", "operation.announced"]

REPLAY_OF = "x-deviceops-dead-letter"
"""The header of a dead letter that is sent to the broker again: its fingerprint."""
REPLAYS = "x-deviceops-replays"
"""The header beside it: how many times it was processed before."""

CLOCKS_ARE_SET = datetime(2000, 1, 1, tzinfo=UTC)
"""What a sender dates before was dated by a clock that was not set."""

MAX_BODY = 64 * 2**20
"""Bytes of a message that is read: 10,000 reports with the longest reasons have 45 MB. RabbitMQ takes 128 MB."""

MARKS = frozenset({"compression", *(f"{prefix}specversion" for prefix in PREFIXES)})
"""Headers of what is compressed, or a CloudEvent."""

_TELLING = {"reports": REPORTS, "device_ids": ANNOUNCEMENT, "device_count": ANNOUNCEMENT}
"""Fields that a report never has, and the types of the messages that do."""

_types: dict[str, str] = {}
"""Foreign names of types of messages; set once, with the settings, as everything that reads messages has them."""


def _is_structured(properties: Mapping[str, Any]) -> bool:
    return str(properties.get("content_type", "")).lower().startswith(STRUCTURED)


Key = tuple[UUID, str]
"""A message's identity: the id of its device operation, or of the operation it announces, and its own."""

_report = TypeAdapter(Report)
_announcement = TypeAdapter(Announcement)
_reports = TypeAdapter(AnyReports)
NAMING: Mapping[str, TypeAdapter[UUID | str]] = {
    "operation_id": TypeAdapter(UUID),
    "device_id": TypeAdapter(UUID),
    "service_id": TypeAdapter(Name),
}
"""What a report names, and how it is read from a document that is no report."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message came from, for the dead letter that it may become."""

    exchange: str = ""
    routing_key: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    is_http: bool = False

    @property
    def has_senders(self) -> bool:
        """Whether it came by a way that knows who sends: through a broker's exchange or queue, or over HTTP."""
        return bool(self.exchange or self.routing_key or self.is_http)

    @property
    def is_wrapped(self) -> bool:
        """Whether it says that the body is compressed, or a CloudEvent."""
        properties, headers = self.properties, self.headers
        is_event = _is_structured(properties)
        return "content_encoding" in properties or is_event or not MARKS.isdisjoint(headers)

    def plain(self) -> "Origin":
        """The same of what was wrapped so, once it is unwrapped."""
        kept = {name: value for name, value in self.properties.items() if name != "content_encoding"}
        if _is_structured(kept):
            del kept["content_type"]
        unmarked = (name for name in self.headers if name != "compression" and not name.startswith(PREFIXES))
        return replace(self, properties=kept, headers={name: self.headers[name] for name in unmarked})

    @property
    def user_id(self) -> str | None:
        """Who sent it: the broker's user (RabbitMQ refuses a message that names another), or a token's name."""
        return self.properties.get("user_id")


@dataclass(slots=True)
class Message:
    """One message as an intake hands it over. Times are UTC."""

    content: bytes | Callable[[], bytes]
    """The body, or what gives it: that of one of many reports is written out only if it becomes a dead letter."""
    received_at: datetime
    message_id: str | None = None
    type: str | None = None
    sent_at: datetime | None = None
    origin: Callable[[], Origin] = Origin
    """Called only for a message that becomes a dead letter: most never do."""
    dead_letter_id: int | None = None
    """The stored dead letter that this message is, when it is processed again."""
    part_of: int | None = None
    """The stored bulk message, processed again, that this report comes from."""
    is_last_part: bool = False
    """Whether that message is done with once this report is."""
    replay_of: UUID | None = None
    """The fingerprint of the dead letter that this message says it is, sent to the broker again."""
    is_republished: bool = False
    """Whether it says so rightly."""
    given_up: str | None = None
    """Why the broker gave it up, in words, if it did."""
    redeliveries: int = 0
    """How often it was delivered before; whoever got it then may have died of it."""
    is_awaited: bool = False
    """Whether its sender waits for the answer: what is rejected is answered, and not kept."""
    is_plain: bool | None = None
    """Whether nothing says that it is compressed, or a CloudEvent; None if its origin is to be asked."""
    is_bare: bool = False
    """Whether its dead letter is to have nothing that its sender wrote but the body's bytes."""

    def bare(self) -> "Message":
        """The message by what any database keeps of it: its bytes, and when they came."""
        return replace(self, message_id=None, type=None, sent_at=None, origin=Origin, is_bare=True)

    @property
    def body(self) -> bytes:
        """Its bytes."""
        return self.content if isinstance(self.content, bytes) else self.content()


@dataclass(slots=True)
class Incoming:
    """One readable report on its way, with its identity."""

    report: Report
    key: Key
    at: datetime
    """When the state was reached: as the report says, else as the sender's clock or ours does."""
    message: Message
    note: str | None = None
    """What of it could not be read, and was left out."""
    unless_settled: bool = False
    """Whether it asks for a state, rather than reports one: what is settled cannot be asked to change."""


class Portion(NamedTuple):
    """What one transaction does of an announcement that takes several."""

    devices: Sequence[UUID]
    """Those that it registers."""
    is_first: bool = False
    """Whether it writes what the announcement says of the operation."""
    is_last: bool = False
    """Whether the announcement is done with then."""


@dataclass(slots=True)
class Announced:
    """One readable announcement on its way; its id stands in the history of the devices that it registers."""

    announcement: Announcement
    key: Key | None
    """The operation and the message's id; None for one without, which is news each time."""
    report_id: str
    at: datetime
    message: Message
    note: str | None = None
    """What of it could not be read, and was left out."""
    portion: Portion | None = None
    """None for all of it, in one transaction."""

    @property
    def devices(self) -> Collection[UUID]:
        """Those that it registers."""
        return dict.fromkeys(self.announcement.device_ids or ()) if self.portion is None else self.portion.devices

    @property
    def begins(self) -> bool:
        """Whether what it says of the operation is to be written."""
        return self.portion is None or self.portion.is_first

    @property
    def ends(self) -> bool:
        """Whether it is done with then."""
        return self.portion is None or self.portion.is_last

    @property
    def beginning(self) -> Key | None:
        """A key of its own that is kept while only some portions are committed: one that is begun is no news."""
        return None if self.key is None else (self.key[0], str(uuid5(NAMESPACE, f"beginning {self.key[1]}")))


@dataclass(slots=True)
class Rejected:
    """A message, or one report of a bulk message, that there is nothing to decide about, with what is wrong."""

    detail: str
    message: Message
    reason: Reason = Reason.MALFORMED


Item = Incoming | Announced | Rejected


_FIRST = 0xFFFF_FFFF << 96
"""The bits of an id that are the operation's, as of the whole number that its sixteen bytes are."""
_HASHED = ~_FIRST & ~(0xF << 76 | 0b11 << 62)
"""Those of the hash: the others but for version and variant."""
_VERSION_8 = 8 << 76 | 0b10 << 62


def device_operation_id(operation_id: UUID, device_id: UUID) -> UUID:
    """The id of a device operation: a UUIDv8 (RFC 9562, section 5.8) that begins as the operation's id does.

    After the first four bytes come 90 bits of what `pair_id` hashes: a million devices of one operation have two
    of the same id with a probability of 4e-16. Being a function of the pair, it needs no look-up, and two workers
    that register one pair agree on it. Beginning like each other's, the ids of an operation's devices lie together
    in every index but that of a device's: beside millions of others, a batch touches few pages of them.
    """
    operation, device = operation_id.int, device_id.int
    digest = sha1(operation.to_bytes(16) + device.to_bytes(16), usedforsecurity=False).digest()
    number = operation & _FIRST | int.from_bytes(digest[:16]) & _HASHED | _VERSION_8
    # The driver's own kind of UUID: it is made, hashed and sent several times as fast, and equals any other.
    id_: UUID = DriverUUID(number.to_bytes(16))
    return id_


def pair_id(operation_id: UUID, device_id: UUID) -> UUID:
    """The UUIDv5 of the device's 16 bytes in the operation's namespace: what dead letters know their report by."""
    digest = sha1(operation_id.bytes + device_id.bytes, usedforsecurity=False).digest()
    return UUID(bytes=digest[:16], version=5)


def parse(message: Message) -> list[Item]:
    """Read one message: its report or announcement, each of its reports, or what is wrong with it."""
    if message.given_up is not None:
        return [Rejected(message.given_up, message, Reason.UNDELIVERABLE)]
    if len(message.body) > MAX_BODY:
        return [Rejected(f"body: is larger than {MAX_BODY:,} bytes", message)]
    try:
        reading = read(message)
    except Unreadable as error:
        return [Rejected(str(error), message)]
    type_ = reading.type or REPORT
    type_ = _types.get(type_, type_)
    if type_ == REPORT:
        return [_parse_report(reading, message)]
    if type_ == REPORTS:
        return _parse_reports(reading, message)
    if type_ == ANNOUNCEMENT:
        return [_parse_announcement(reading, message)]
    known = ", ".join((REPORT, REPORTS, ANNOUNCEMENT))
    return [Rejected(f"type: {shown(type_)} is not a message type (expected {known})", message)]


def take_types(names: Mapping[str, str]) -> None:
    """Take foreign type names for types of messages from now on, in this process."""
    _types.clear()
    _types.update(names)


def read(message: Message) -> Message:
    """A message unpacked, as its CloudEvent has it, without a byte order mark. Raises Unreadable."""
    is_plain = message.is_plain
    if is_plain is None:
        is_plain = message.origin is Origin or not message.origin().is_wrapped
    if not is_plain:
        message = _unwrapped(message)
    body = message.body
    text = text_of(body)
    return message if text is body else replace(message, content=text, is_plain=True)


def as_far_as_readable(message: Message) -> Message:
    """The message as `read` returns it; unchanged if it is unreadable."""
    try:
        return read(message)
    except Unreadable:
        return message


def text_of(body: bytes) -> bytes:
    """A body without the mark that some begin with, and without halves of characters."""
    return whole(body.removeprefix(BOM) if body.startswith(BOM) else body)


def _unwrapped(message: Message) -> Message:
    origin = message.origin()
    encoding, compression = origin.properties.get("content_encoding"), origin.headers.get("compression")
    body = text_of(unpacked(message.body, MAX_BODY, encoding, compression))
    event = read_event(body, origin.properties.get("content_type"), origin.headers)
    plain = replace(message, content=body, origin=partial(_plain, message.origin), is_plain=True)
    if event is None:
        return plain
    sent_at = event.time or message.sent_at
    return replace(plain, content=event.body, type=event.type, message_id=identity(event.id), sent_at=sent_at)


def _plain(origin: Callable[[], Origin]) -> Origin:
    return origin().plain()


def named_in(message: Message) -> Mapping[str, UUID | str]:
    """What a message that is kept names, as far as it can be read, so that its dead letter can be found.

    What the broker gave up may be as readable as any; of many reports it is what all of them name.
    """
    if message.is_bare:
        return {}
    items = [] if message.given_up is None else parse(replace(message, given_up=None, dead_letter_id=None))
    named = [set(_named(item).items()) for item in items if not isinstance(item, Rejected)]
    return dict(set.intersection(*named)) if named else _named_in_body(message)


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


def _parse_report(reading: Message, message: Message) -> Incoming | Rejected:
    try:
        report = _report.validate_json(reading.body)
    except ValidationError as error:
        return Rejected(_unreadable(error, reading.body) + _meant(reading), message)
    return _incoming(report, reading, message)


def _meant(reading: Message) -> str:
    """What a message without a type that is no report looks like, as a hint for its sender."""
    if reading.type:
        return ""
    with suppress(ValueError):
        document = pydantic_core.from_json(reading.body)
        if isinstance(document, dict) and "operation_id" not in document:
            types = (type_ for field, type_ in _TELLING.items() if field in document)
            return next((f"; was it to be of type {type_}?" for type_ in types), "")
    return ""


def _incoming(report: Report, reading: Message, message: Message) -> Incoming:
    at, note = report.occurred_at, None
    if at is None or isinstance(at, LeftOut):
        note = None if at is None else _note({"occurred_at": at.value})
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


def plausible(claimed: datetime, received_at: datetime) -> datetime:
    """When something began, as its sender says, or when that came where it cannot be true: by a clock that is not
    set, which shows the zero of Unix, of Go or of .NET, or by one that is ahead of ours.
    """
    return claimed if CLOCKS_ARE_SET < claimed <= received_at else received_at


def _identity(reading: Message, message: Message) -> str:
    return identity(reading.message_id) or body_id(message.body)


def _parse_announcement(reading: Message, message: Message) -> Announced | Rejected:
    try:
        announcement = _announcement.validate_json(reading.body)
    except ValidationError as error:
        return Rejected(_unreadable(error, reading.body), message)
    at = announcement.created_at or reading.sent_at or message.received_at
    # An id of its own kind: a report may well carry the same message id as the announcement.
    own = _identity(reading, message)
    report_id = str(uuid5(NAMESPACE, f"announcement {own}"))
    key = (announcement.id, own) if identity(reading.message_id) else None
    return Announced(announcement, key, report_id, at, message, note=_note(announcement.left_out))


def _note(left_out: Mapping[str, object]) -> str | None:
    if not left_out:
        return None
    return one_line(
        "; ".join(f"{name} {shown(value)} cannot be read, and is left out" for name, value in left_out.items())
    )


def _parse_reports(reading: Message, message: Message) -> list[Item]:
    body = reading.body
    try:
        reports = _reports.validate_json(body).reports
    except ValidationError as error:
        return [Rejected(_unreadable(error, body), message)]
    if not reports and message.dead_letter_id is not None:
        return [Rejected("reports: has none", message)]  # something has to say what became of it
    # Not the body: many that were small when they came would be held while they are processed.
    bodies = cache(lambda: pydantic_core.from_json(read(message).body)["reports"])
    parts = _parts(reading, message, len(reports), bodies)
    return [
        _incoming(report, part, part) if isinstance(report, Report) else _parse_report(part, part)
        for report, part in zip(reports, parts, strict=True)
    ]


def _parts(reading: Message, message: Message, count: int, bodies: Callable[[], list[Any]]) -> list[Message]:
    """Each report of a bulk message as a message of its own, which can be kept and replayed alone."""
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
    """What is wrong with a body: what it is, where that is no JSON in UTF-8 at all."""
    if error.errors(include_url=False, include_context=False, include_input=False)[0]["type"] != "json_invalid":
        return explain(error)
    if not body:
        return "body: is empty"
    found = foreign(body)
    if found is None:
        try:
            body.decode()
        except UnicodeDecodeError:
            found = "not UTF-8"
    return explain(error) if found is None else f"body: is {found}, and has to be JSON in UTF-8"


def explain(error: ValidationError) -> str:
    """What is wrong with a document, in one line: at most three findings, as the rest rarely tells more."""
    findings = error.errors(include_url=False, include_context=False)
    told = [
        f"{'.'.join(map(str, finding['loc'])) or 'body'}: {finding['msg'].removeprefix('Value error, ')}"
        for finding in findings[:3]
    ]
    if len(findings) > len(told):
        told.append(f"and {len(findings) - len(told)} more")
    return one_line("; ".join(told))
