"""Outcomes: the reasons for dead letters, their status, and the tally of a batch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any, NamedTuple, Self
from uuid import UUID

from statemachine import Kind, Verdict


class Reason(StrEnum):
    """Why a message or a report is kept as a dead letter."""

    MALFORMED = "malformed"
    CONFLICT = "conflict"
    UNKNOWN_DEVICE_OPERATION = "unknown_device_operation"
    """Parked: processed when the registration arrives."""
    OPERATION_TYPE_MISMATCH = "operation_type_mismatch"
    UNKNOWN_SERVICE = "unknown_service"
    """The sender is not among the services that may report, or is not authenticated by the broker."""
    NOT_ALLOWED = "not_allowed"
    """The service may report, but not this state, or not for this type of operation."""
    UNDELIVERABLE = "undeliverable"
    """The broker abandoned it before a worker could process it."""

    @property
    def traits(self) -> "_Traits":
        """The properties of this reason."""
        return _TRAITS[self]


class _Traits(NamedTuple):
    """The properties of a reason."""

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
    """The status of a dead letter."""

    OPEN = "open"
    RESOLVED = "resolved"
    """Accepted later, replaced by a corrected copy, or republished."""
    DISCARDED = "discarded"


class Action(StrEnum):
    """An action on a dead letter."""

    RECEIVED = "received"
    RELEASED = "released"
    """Processed when the registration arrived."""
    REPLAYED = "replayed"
    REPUBLISHED = "republished"
    """Published to the broker again."""
    CORRECTED = "corrected"
    DISCARDED = "discarded"
    RESTORED = "restored"
    IMPORTED = "imported"


DUPLICATE = "duplicate"
"""Outcome of a report that was processed before."""
REJECTED = "rejected"
"""Outcome of a report that becomes a dead letter."""
LEFT_OUT = "left out"
"""Counted in addition to the verdict: a message with an unreadable field that was left out."""
CONTRADICTING = "contradicting"
"""Counted in addition: a duplicate that names another state than the accepted report with its id."""
OF_DISCARDED = "of discarded"
"""Counted in addition: a duplicate of a report whose dead letter was discarded."""
AT_ONCE = "by the batch that it came in"
"""Detail of a dead letter that the batch which parked it has released."""


class DeadLetterExample(NamedTuple):
    """The ids of a dead letter, for the log; nothing of its content."""

    reason: Reason
    id: int
    message_id: str | None
    operation_id: UUID | None
    device_id: UUID | None


class Contradiction(NamedTuple):
    """A duplicate that names another state than the accepted report with its id."""

    service_id: str
    operation_id: UUID
    device_id: UUID
    report_id: str
    accepted: str
    named: str


EXAMPLES = 3
"""Maximum number of dead letters, and of contradictions, of a batch that the log names."""


@dataclass(slots=True)
class Tally:
    """The numbers of messages received, and of their outcomes.

    `received` counts reports, announcements and unreadable messages. A parked report counts under
    `dead_lettered`, and when a registration releases it, under `released` and under its verdict too, so that
    received + released = all verdicts + duplicate + announced + the sum of dead_lettered.
    """

    received: int = 0
    duplicate: int = 0
    announced: int = 0
    released: int = 0
    dead_lettered: Counter[Reason] = field(default_factory=Counter)
    by_service: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Counts of verdicts, DUPLICATE, REJECTED, … by service; "" where it is unreadable or untrusted."""
    timeouts: Counter[Kind] = field(default_factory=Counter)
    """Device operations that were timed out; each also counts as received, and under its verdict."""
    aborts: int = 0
    """Abort thresholds that were crossed."""
    aborted: list[tuple[UUID, str]] = field(default_factory=list)
    """Operations whose abort threshold was crossed, with the numbers in words."""
    examples: list[DeadLetterExample] = field(default_factory=list)
    """The first few new and open dead letters."""
    contradictions: list[Contradiction] = field(default_factory=list)
    """The first few duplicates that name another state."""

    @property
    def verdicts(self) -> Counter[Verdict]:
        """Numbers of reports by verdict."""
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
        self.timeouts.update(other.timeouts)
        self.aborts += other.aborts
        self.aborted = [*self.aborted, *other.aborted]
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

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The tally of a summary, which does not name services."""
        return cls(
            received=document["received"],
            duplicate=document["duplicate"],
            announced=document["announced"],
            released=document["released"],
            dead_lettered=Counter({Reason(name): number for name, number in document["dead_lettered"].items()}),
            by_service=Counter({("", verdict): document.get(verdict.value, 0) for verdict in Verdict}),
        )

    def dead_letter_counts(self) -> Mapping[str, int]:
        """Numbers of reports that became, or still are, dead letters, by reason."""
        return {reason.value: n for reason, n in sorted(self.dead_lettered.items()) if n}
