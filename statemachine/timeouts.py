"""When a device operation is timed out: the earliest of up to five moments."""

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """Kinds of timeouts."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    STEP = "step"
    TOTAL = "total"
    DEADLINE = "deadline"


class Timeouts(NamedTuple):
    """The timeouts of an operation; None where it has none of a kind. All values are milliseconds."""

    pending: int | None = None
    """Since the registration, while the device operation is not dispatched."""
    in_progress: int | None = None
    """Since it became dispatched."""
    step: int | None = None
    """Since the last accepted report, once it is dispatched."""
    total: int | None = None
    """Since the registration."""
    deadline: int | None = None
    """A moment, since 1970."""


class Times(NamedTuple):
    """What happened to a device operation, by the database's clock, in milliseconds since 1970."""

    registered_at: int
    dispatched_at: int | None
    """None if it is not dispatched."""
    reported_at: int
    """When its last report was accepted."""


class Expiry(NamedTuple):
    """The moment at which a device operation is over unless it is settled by then, and by which timeout."""

    at: int
    kind: Kind


def expiry(timeouts: Timeouts, times: Times) -> Expiry | None:
    """The earliest timeout of a device operation that is not settled; None if it has none."""
    pending, in_progress, step, total, deadline = timeouts
    registered_at, dispatched_at, reported_at = times
    found = []
    if dispatched_at is None:
        if pending is not None:
            found.append(Expiry(registered_at + pending, Kind.PENDING))
    else:
        if in_progress is not None:
            found.append(Expiry(dispatched_at + in_progress, Kind.IN_PROGRESS))
        if step is not None:
            found.append(Expiry(reported_at + step, Kind.STEP))
    if total is not None:
        found.append(Expiry(registered_at + total, Kind.TOTAL))
    if deadline is not None:
        found.append(Expiry(deadline, Kind.DEADLINE))
    return min(found, default=None, key=_moment)


def _moment(found: Expiry) -> int:
    return found.at
