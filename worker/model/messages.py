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
"""Names of message types, as the AMQP property `type` has them; `worker.model.parsing` has a table of them."""

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


def _is_structured(properties: Mapping[str, Any]) -> bool:
    return str(properties.get("content_type", "")).lower().startswith(STRUCTURED)


Key = tuple[UUID, str]
"""A message's identity: the id of its device operation, or of the operation it announces, and its own."""


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


@frozen
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


@frozen
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


@frozen
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


@frozen
class Rejected:
    """A message, or one report of a bulk message, that there is nothing to decide about, with what is wrong."""

    detail: str
    message: Message
    reason: Reason = Reason.MALFORMED


Item = Incoming | Announced | Rejected


def plausible(claimed: datetime, received_at: datetime) -> datetime:
    """When something began, as its sender says, or when that came where it cannot be true: by a clock that is not
    set, which shows the zero of Unix, of Go or of .NET, or by one that is ahead of ours.
    """
    return claimed if CLOCKS_ARE_SET < claimed <= received_at else received_at
