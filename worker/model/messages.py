"""Messages: the envelope that a transport hands over, and the items that parsing makes of it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from worker.model.cloudevents import PREFIXES, STRUCTURED
from worker.model.contract import Announcement, Report
from worker.model.frozen import frozen
from worker.model.identity import NAMESPACE
from worker.model.outcomes import Reason

REPORT = "device-operation.report"
REPORTS = "device-operation.reports"
ANNOUNCEMENT = "operation.announced"
"""Names of message types, the values of the AMQP property `type`; `worker.model.parsing.TYPES` is their table."""

REPLAY_OF = "x-deviceops-dead-letter"
"""Header of a republished dead letter: its fingerprint."""
REPLAYS = "x-deviceops-replays"
"""Header of a republished dead letter: the number of times that it was processed."""

CLOCKS_ARE_SET = datetime(2000, 1, 1, tzinfo=UTC)
"""Earlier times come from a clock that was not set."""

MAX_BODY = 64 * 2**20
"""Maximum bytes of a body. 10,000 reports with the longest reasons have 45 MB; RabbitMQ allows 128 MB."""

MARKS = frozenset({"compression", *(f"{prefix}specversion" for prefix in PREFIXES)})
"""Headers of compressed messages and CloudEvents."""


def _is_structured(properties: Mapping[str, Any]) -> bool:
    return str(properties.get("content_type", "")).lower().startswith(STRUCTURED)


Key = tuple[UUID, str]
"""A message's identity: the id of its device operation, or of the announced operation, and its own id."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a message, for the dead letter that it may become."""

    exchange: str = ""
    routing_key: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    is_http: bool = False

    @property
    def has_senders(self) -> bool:
        """Whether the transport knows the sender: a broker's exchange or queue, or HTTP."""
        return bool(self.exchange or self.routing_key or self.is_http)

    @property
    def is_wrapped(self) -> bool:
        """Whether the body is declared to be compressed, or a CloudEvent."""
        properties, headers = self.properties, self.headers
        is_event = _is_structured(properties)
        return "content_encoding" in properties or is_event or not MARKS.isdisjoint(headers)

    def plain(self) -> "Origin":
        """The origin of the unwrapped message: without the properties and headers that declare the wrapping."""
        kept = {name: value for name, value in self.properties.items() if name != "content_encoding"}
        if _is_structured(kept):
            del kept["content_type"]
        unmarked = (name for name in self.headers if name != "compression" and not name.startswith(PREFIXES))
        return replace(self, properties=kept, headers={name: self.headers[name] for name in unmarked})

    @property
    def user_id(self) -> str | None:
        """The sender: the broker's user (RabbitMQ refuses a message that names another), or a token's name."""
        return self.properties.get("user_id")


@frozen
class Message:
    """One message as received. Times are UTC."""

    content: bytes | Callable[[], bytes]
    """The body, or a function that returns it: the body of a report in bulk is built only for a dead letter."""
    received_at: datetime
    message_id: str | None = None
    type: str | None = None
    sent_at: datetime | None = None
    origin: Callable[[], Origin] = Origin
    """Called only for messages that become dead letters."""
    dead_letter_id: int | None = None
    """Id of the stored dead letter that is processed again as this message."""
    part_of: int | None = None
    """Id of the stored bulk message, processed again, that contains this report."""
    is_last_part: bool = False
    """Whether this is the last report of that message."""
    replay_of: UUID | None = None
    """The fingerprint of a dead letter, if the message claims to be one that was republished."""
    is_republished: bool = False
    """Whether that claim was verified."""
    abandoned: str | None = None
    """Why the broker abandoned it, in words; None if it did not."""
    redeliveries: int = 0
    """Number of earlier deliveries, any of which may have ended a worker."""
    is_awaited: bool = False
    """Whether its sender waits for the result: a rejection is answered, not kept."""
    is_plain: bool | None = None
    """Whether it is neither compressed nor a CloudEvent; None if its origin has to be consulted."""
    is_bare: bool = False
    """Whether its dead letter keeps nothing of the sender's but the body's bytes."""

    def bare(self) -> "Message":
        """The message reduced to what every database can store: its bytes, and when they were received."""
        return replace(self, message_id=None, type=None, sent_at=None, origin=Origin, is_bare=True)

    @property
    def body(self) -> bytes:
        """The body's bytes."""
        return self.content if isinstance(self.content, bytes) else self.content()


@frozen
class Incoming:
    """One valid report, with its identity."""

    report: Report
    key: Key
    at: datetime
    """When the state was reached: from the report, else from the sender's clock, else from the worker's."""
    message: Message
    note: str | None = None
    """What was unreadable and left out."""
    unless_settled: bool = False
    """Whether it requests a state rather than reports one: a settled device operation rejects it."""


class Portion(NamedTuple):
    """The part of an announcement that one transaction processes."""

    devices: Sequence[UUID]
    """The devices that it registers."""
    is_first: bool = False
    """Whether it writes the announcement's fields."""
    is_last: bool = False
    """Whether it ends the announcement."""


@frozen
class Announced:
    """One valid announcement; its report id is in the history of the devices that it registers."""

    announcement: Announcement
    key: Key | None
    """The operation and the message's id; None without a message id: such an announcement is never a duplicate."""
    report_id: str
    at: datetime
    message: Message
    note: str | None = None
    """What was unreadable and left out."""
    portion: Portion | None = None
    """None if one transaction processes all of it."""

    @property
    def devices(self) -> Collection[UUID]:
        """The devices that it registers."""
        return dict.fromkeys(self.announcement.device_ids or ()) if self.portion is None else self.portion.devices

    @property
    def begins(self) -> bool:
        """Whether its fields are to be written."""
        return self.portion is None or self.portion.is_first

    @property
    def ends(self) -> bool:
        """Whether it is processed completely."""
        return self.portion is None or self.portion.is_last

    @property
    def beginning(self) -> Key | None:
        """A second key, stored while only some portions are committed."""
        return None if self.key is None else (self.key[0], str(uuid5(NAMESPACE, f"beginning {self.key[1]}")))


@frozen
class Overdue:
    """A device operation that may be over: it is timed out if it is, once it is locked."""

    id: UUID
    """Of the device operation."""
    operation_id: UUID
    device_id: UUID
    until: int
    """It is over if its timeout was at this moment or before, in milliseconds since 1970."""
    message: Message


@frozen
class Rejected:
    """A message, or one report of a bulk message, that is invalid, with what is wrong."""

    detail: str
    message: Message
    reason: Reason = Reason.MALFORMED


Parsed = Incoming | Announced | Rejected
"""What parsing makes of a message."""
Item = Parsed | Overdue
"""What a transaction processes."""


def plausible(claimed: datetime, received_at: datetime) -> datetime:
    """The claimed time, or the time of receipt where the claim cannot be true.

    A clock that is not set shows the zero of Unix, of Go or of .NET; one that is ahead shows the future.
    """
    return claimed if CLOCKS_ARE_SET < claimed <= received_at else received_at
