"""What a transaction knows before it decides: read and locked by `worker.processing.loading`."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from statemachine import State
from worker.model.dead_letter import DeadLetter
from worker.model.messages import Key
from worker.model.outcomes import Status

# A member looked up in its class costs more than most of what is done for a report.
CREATED = State.CREATED

Claim = tuple[UUID, UUID, datetime, str]
"""The row that a batch inserts to register a device operation: operation, device, creation time, state times."""


@dataclass(slots=True)
class TrackedDeviceOperation:
    """A registered device operation while a batch is decided."""

    operation_id: UUID
    state: State = CREATED
    dispatched: bool = False
    state_times: str = ""
    """The states that reports have named, with the earliest time of each (see `worker.model.state_times`)."""
    stored: tuple[State, bool, str] = (CREATED, False, "")
    """State, dispatched and state times of the stored row."""
    is_new: bool = True
    """Whether this batch registers it, so that no counter includes it yet."""
    reason: str | None = None
    """The reason to write; None keeps the stored one."""

    @property
    def is_changed(self) -> bool:
        """Whether it differs from the stored row."""
        return self.reason is not None or (self.state, self.dispatched, self.state_times) != self.stored


@dataclass(slots=True)
class Known:
    """What is stored of everything that a batch touches. Decisions update it as they are made."""

    operation_types: dict[UUID, str | None] = field(default_factory=dict)
    """Of every operation that exists."""
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
    """The rows of the device operations that this batch may register."""
    inserted: set[UUID] = field(default_factory=set)
    """Device operations that loading has inserted; those that no decision registers are withdrawn."""
    created_operations: set[UUID] = field(default_factory=set)
    """Operations that loading has inserted; those that no decision uses are withdrawn."""
