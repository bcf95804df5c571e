"""Watermarks of queues: the moment before which everything that was published has been processed.

A worker looks at a queue. If nothing in it waits for delivery, then everything published before is committed, or
was delivered to a consumer. Once all consumers have settled what they had received by then, it is committed. The
look counts for nothing if a consumer was lost meanwhile, whose messages went back into the queue.
"""

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

GONE_AFTER = 5_000
"""Milliseconds without a sign of a worker after which it counts as lost."""


class Phase(StrEnum):
    """What a worker does with a queue."""

    CONSUMING = "consuming"
    DRAINING = "draining"
    """Nothing more is delivered to it; what was is not settled yet."""
    GONE = "gone"


class Progress(NamedTuple):
    """How far a worker has come with a queue. Moments are in milliseconds since 1970, by the database's clock."""

    worker_id: UUID
    queue: str
    phase: Phase
    seen_at: int
    """When it was last heard of."""
    settled_until: int
    """What was delivered to it before is settled."""
    processed_until: int
    """What was published to the queue before is processed, as it has found."""


class Own(NamedTuple):
    """How far this worker has come with a queue."""

    queue: str
    phase: Phase
    settled_at: float
    """What was delivered before is settled, by the clock of the worker's loop, in seconds."""
    processed_until: int


class Look(NamedTuple):
    """A look at a queue in which nothing waited for delivery."""

    began: int
    ended: int
    consumers: int
    """Of the queue, as the broker counts them."""


def is_confirmed(look: Look, rows: Collection[Progress], clock: int) -> bool | None:
    """Whether everything published to a queue before a look is processed; None if it cannot be said any more.

    `rows` are those of the queue.
    """
    if look.began > clock:
        return None  # the clock was set back
    rows = of_this_time(rows, clock)
    present = _present(rows, clock)
    lost = (
        row.seen_at if row.phase is Phase.GONE else row.seen_at + GONE_AFTER for row in rows if row not in present
    )
    if look.began <= max(lost, default=0):
        return None
    if look.consumers > known_consumers(rows, clock):
        return None  # another consumer, of which nothing is known, may hold messages
    return all(row.settled_until >= look.ended for row in present)


def known_consumers(rows: Iterable[Progress], clock: int) -> int:
    """How many consumers of a queue, of those that the broker counts, say how far they have come.

    One that has cancelled its consumer is not among them, though a quorum queue counts it until it has settled all
    that it holds. So nothing of that is overlooked, not even if it stands still before it has said so.
    """
    return sum(row.phase is Phase.CONSUMING for row in _present(rows, clock))


def processed_until(rows: Iterable[Progress], queues: Iterable[str], clock: int) -> int | None:
    """The moment before which everything published to any of the queues is processed; None if it is not known.

    It is never after `clock`, the database's. A row that knows of a time to come is from before that was set back.
    """
    found = dict.fromkeys(queues, 0)
    for row in rows:
        if row.queue in found and row.processed_until <= clock:
            found[row.queue] = max(found[row.queue], row.processed_until)
    return min(found.values(), default=0) or None


def of_this_time(rows: Iterable[Progress], clock: int) -> list[Progress]:
    """The rows without those of a time to come, at a clock that was read after them: it was set back since.

    Whoever lives says something new at once. Who does not is no consumer any more, or the broker counts one more
    than say anything. So such a row is not needed, and it must not be believed once its time comes again.
    """
    return [row for row in rows if row.seen_at <= clock]


def _present(rows: Iterable[Progress], clock: int) -> list[Progress]:
    return [
        row
        for row in of_this_time(rows, clock)
        if row.phase is not Phase.GONE and row.seen_at > clock - GONE_AFTER
    ]
