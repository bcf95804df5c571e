"""What a transaction knows before it decides: read and locked by `worker.processing.loading`."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from statemachine import State, Timeouts
from worker.model.dead_letter import DeadLetter
from worker.model.messages import Key
from worker.model.outcomes import Status
from worker.model.timing import Timing, effective

# A member looked up in its class costs more than most of what is done for a report.
CREATED = State.CREATED

_NO_TIMING = Timing()

Claim = tuple[UUID, UUID, datetime, str, str | None]
"""The row that a batch inserts to register a device operation: operation, device, creation time, state times, and
the service whose report registers it."""
Stored = tuple[State, bool, str, int | None]
"""State, dispatched, state times and expiry of the stored row."""


@dataclass(slots=True)
class TrackedDeviceOperation:
    """A registered device operation while a batch is decided."""

    operation_id: UUID
    state: State = CREATED
    dispatched: bool = False
    state_times: str = ""
    """The states that reports have named, with the earliest time of each (see `worker.model.state_times`)."""
    stored: Stored = (CREATED, False, "", None)
    is_new: bool = True
    """Whether this batch registers it, so that no counter includes it yet."""
    reason: str | None = None
    """The reason to write; None keeps the stored one, and with it what follows from the same report."""
    code: str | None = None
    """The code to write with it."""
    service_id: str | None = None
    """The service to write with it."""
    cause: str | None = None
    """The cause to write with it (see `worker.model.causes`)."""
    at: datetime | None = None
    """When that state was reached, of one that is grouped by cause."""
    stored_cause: str | None = None
    """The cause of the stored row."""
    registered_at: int = 0
    """Like all that follows by the database's clock, in milliseconds since 1970."""
    dispatched_at: int | None = None
    """None if it is not dispatched."""
    reported_at: int = 0
    """When a report of it was last accepted; of the stored row, only exact while its operation has `step`."""
    is_reported: bool = False
    """Whether a report of it is accepted by this batch."""
    expires_at: int | None = None
    """When it has to be looked at whether it is over; None if it has no timeout, or is settled."""


@dataclass(slots=True)
class Known:
    """What is stored of everything that a batch touches. Decisions update it as they are made."""

    operation_types: dict[UUID, str | None] = field(default_factory=dict)
    """Of every operation that exists."""
    timing: dict[UUID, Timing] = field(default_factory=dict)
    """What announcements have said of timeouts, by operation."""
    clock: int = 0
    """The database's, in milliseconds since 1970."""
    new_announcements: set[Key] = field(default_factory=set)
    """Announcements of this batch, with an id, that were not processed before; processing one removes it."""
    begun: set[Key] = field(default_factory=set)
    """The beginning keys of announcements of which some portions are committed."""
    registered: dict[UUID, TrackedDeviceOperation] = field(default_factory=dict)
    """Device operations, by id."""
    accepted: dict[Key, State] = field(default_factory=dict)
    """Accepted reports of this batch, from before or within it, and the states that they named."""
    kept: dict[Key, int] = field(default_factory=dict)
    """Reports of this batch that are kept as dead letters, and their ids; 0 for new ones."""
    discarded: set[Key] = field(default_factory=set)
    """Reports kept as dead letters that were discarded."""
    parked: defaultdict[UUID, list[DeadLetter]] = field(default_factory=lambda: defaultdict(list))
    """Parked reports, by device operation."""
    stored: dict[int, Status] = field(default_factory=dict)
    """The status of the stored dead letters that this batch processes again."""
    claims: Mapping[UUID, Claim] = field(default_factory=dict)
    """The device operations that this batch is about, as rows that it may insert to register them."""
    expiries: Mapping[UUID, int | None] = field(default_factory=dict)
    """When the device operations that loading has inserted expire, as their rows say."""
    inserted: set[UUID] = field(default_factory=set)
    """Device operations that loading has inserted; those that no decision registers are withdrawn."""
    created_operations: set[UUID] = field(default_factory=set)
    """Operations that loading has inserted; those that no decision uses are withdrawn."""

    def timeouts(self, operation_id: UUID) -> Timeouts | None:
        """The timeouts that hold for an operation; None if it has none."""
        return effective(self.timing.get(operation_id, _NO_TIMING), self.operation_types.get(operation_id))
