"""What became of the messages: the reasons for dead letters, where those stand, and the tally that people see."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import NamedTuple
from uuid import UUID

from statemachine import Verdict


class Reason(StrEnum):
    """Why a message or a report is kept as a dead letter."""

    MALFORMED = "malformed"
    CONFLICT = "conflict"
    UNKNOWN_DEVICE_OPERATION = "unknown_device_operation"
    """Parked: taken up by itself when the registration arrives."""
    OPERATION_TYPE_MISMATCH = "operation_type_mismatch"
    UNKNOWN_SERVICE = "unknown_service"
    """The sender is none of the services that may report, or the broker does not vouch for it."""
    NOT_ALLOWED = "not_allowed"
    """The service may report, but not this state, or not for this type of operation."""
    UNDELIVERABLE = "undeliverable"
    """The broker gave it up before a worker could settle it."""

    @property
    def traits(self) -> "_Traits":
        """What follows from it."""
        return _TRAITS[self]


class _Traits(NamedTuple):
    """What follows from a reason."""

    http_status: HTTPStatus = HTTPStatus.BAD_REQUEST
    keeps_identity: bool = False
    """Whether the dead letter has its report's identity, so that the report sent again is a duplicate."""
    is_parked: bool = False
    """Whether the registration of the device operation releases it."""
    is_untrusted: bool = False
    """Whether the report must not use its id, which is free for those who may."""


_TRAITS: Mapping[Reason, _Traits] = {
    Reason.MALFORMED: _Traits(),
    Reason.CONFLICT: _Traits(keeps_identity=True),
    Reason.UNKNOWN_DEVICE_OPERATION: _Traits(HTTPStatus.NOT_FOUND, keeps_identity=True, is_parked=True),
    Reason.OPERATION_TYPE_MISMATCH: _Traits(keeps_identity=True),
    Reason.UNKNOWN_SERVICE: _Traits(HTTPStatus.FORBIDDEN, is_untrusted=True),
    Reason.NOT_ALLOWED: _Traits(HTTPStatus.FORBIDDEN, is_untrusted=True),
    Reason.UNDELIVERABLE: _Traits(),
}


class Rejection(NamedTuple):
    """Why a report is rejected."""

    reason: Reason
    detail: str


class Status(StrEnum):
    """Where a dead letter stands."""

    OPEN = "open"
    RESOLVED = "resolved"
    """Accepted after all, or replaced by a corrected copy, or sent to the broker again."""
    DISCARDED = "discarded"


class Action(StrEnum):
    """What was done with a dead letter."""

    RECEIVED = "received"
    RELEASED = "released"
    """Taken up by the registration that it waited for."""
    REPLAYED = "replayed"
    REPUBLISHED = "republished"
    """Sent to the broker again."""
    CORRECTED = "corrected"
    DISCARDED = "discarded"
    RESTORED = "restored"
    IMPORTED = "imported"


DUPLICATE = "duplicate"
"""What a report is that came before, where others have a verdict."""
REJECTED = "rejected"
"""What a report is that becomes a dead letter."""
LEFT_OUT = "left out"
"""What is counted beside the verdicts: messages of which something that could not be read was left out."""
CONTRADICTING = "contradicting"
"""Duplicates that name another state than the accepted report whose id they have."""
OF_DISCARDED = "of discarded"
"""Duplicates of reports whose dead letters were discarded."""
AT_ONCE = "by the batch that it came in"
"""What is told of a dead letter that was released so soon that nothing was written of it."""


class Example(NamedTuple):
    """A dead letter by what people look for it with; never what it says."""

    reason: Reason
    message_id: str | None
    operation_id: UUID | None
    device_id: UUID | None


class Contradiction(NamedTuple):
    """A duplicate that names another state than the report that was accepted with its id."""

    service_id: str
    operation_id: UUID
    device_id: UUID
    report_id: str
    accepted: str
    named: str


EXAMPLES = 3
"""How many dead letters, and contradictions, of a batch are named in the log, at most."""


@dataclass(slots=True)
class Tally:
    """Numbers of what came in and what became of it.

    `received` counts reports, announcements and unreadable messages. A parked report counts under
    `dead_lettered`, and when a registration takes it up, under `released` and under its verdict too, so that
    received + released = all verdicts + duplicate + announced + the sum of dead_lettered.
    """

    received: int = 0
    duplicate: int = 0
    announced: int = 0
    released: int = 0
    dead_lettered: Counter[Reason] = field(default_factory=Counter)
    by_service: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Verdicts, DUPLICATE and REJECTED by the service that reports; by "" where none can be told or believed."""
    examples: list[Example] = field(default_factory=list)
    """The first few of those that are new and open."""
    contradictions: list[Contradiction] = field(default_factory=list)
    """The first few duplicates that name another state."""

    @property
    def verdicts(self) -> Counter[Verdict]:
        """How many reports had each verdict."""
        counts: Counter[Verdict] = Counter()
        for (_, outcome), count in self.by_service.items():
            if isinstance(outcome, Verdict):
                counts[outcome] += count
        return counts

    def add(self, other: "Tally") -> None:
        """Add another batch's numbers to these."""
        self.received += other.received
        self.duplicate += other.duplicate
        self.announced += other.announced
        self.released += other.released
        self.dead_lettered.update(other.dead_lettered)
        self.by_service.update(other.by_service)
        self.examples = [*self.examples, *other.examples][:EXAMPLES]
        self.contradictions = [*self.contradictions, *other.contradictions][:EXAMPLES]

    def document(self) -> Mapping[str, object]:
        """The summary that `ingest --json` and `run --json` print."""
        verdicts = self.verdicts
        return {
            "received": self.received,
            "applied": verdicts[Verdict.APPLIED],
            "late": verdicts[Verdict.LATE],
            "repeated": verdicts[Verdict.REPEATED],
            "duplicate": self.duplicate,
            "announced": self.announced,
            "released": self.released,
            "dead_lettered": self.dead_letter_counts(),
        }

    def dead_letter_counts(self) -> Mapping[str, int]:
        """How many became, or still are, dead letters, by reason."""
        return {reason.value: n for reason, n in sorted(self.dead_lettered.items()) if n}
