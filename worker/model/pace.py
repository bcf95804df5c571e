"""The pace of an operation: how many device operations settle in a minute, when the last one will, and whether it
is stalled.

Pure: from the minutes in which device operations settled, and the present. Of simulated roll-outs of many kinds
(`tests/unit/test_pace.py`), from a quarter of the way on, more than four fifths have an ETA within a fifth of the
truth: the duration of the whole operation as the ETA makes it, and as it turns out. What no past shows cannot be
foreseen: a pause that is still to come, and devices that all began at once, a few of which take several times as
long as most.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Final, NamedTuple

from statemachine import Counters, OperationState, operation_state
from worker.model.minutes import MILLISECONDS, Settled
from worker.model.timing import moment

STALLED_AFTER: Final = 10
"""Usual pauses without any movement."""
UNKNOWN_PAUSE: Final = 6
"""Minutes: the usual pause while nothing has settled yet, as little is known of how long the devices take.

It is at least half of that once something has in two minutes, a third in three, and so on.
"""
FORESEEN: Final = timedelta(days=3_660)
"""How far in the future an ETA may be."""
_PARTS = 0.5, 0.7, 0.9
"""Parts of what has settled, the latest, over which the rate is taken: short enough for a pace that changes, long
enough for one that fluctuates. The median of the three is used."""
_SECOND = 1 / 60


class Course(NamedTuple):
    """What is known of how an operation has gone so far."""

    counters: Counters
    expected: int | None
    """The announced number of devices."""
    minutes: Sequence[Settled]
    """In order, the present one included."""
    moved_at: int
    """When a counter changed last, in milliseconds since 1970; 0 if that is unknown."""
    clock: int
    """The present, in milliseconds since 1970."""


class Pace(NamedTuple):
    """How an operation goes; neither a rate nor an ETA unless it has begun, is not over, and is not stalled."""

    rate: float = 0.0
    """Device operations that settle in a minute, lately."""
    eta: datetime | None = None
    """When all that are registered or announced will be settled; None if that cannot be said."""
    stalled_since: datetime | None = None
    """The last movement, if it is longer ago than `STALLED_AFTER` usual pauses."""

    @property
    def is_stalled(self) -> bool:
        """Whether nothing has moved for long."""
        return self.stalled_since is not None


class Stretch(NamedTuple):
    """A time in which device operations settled, or a pause, in which none did."""

    minutes: float
    settled: int


def pace(course: Course) -> Pace:
    """The pace of an operation."""
    if operation_state(course.counters, course.expected) != OperationState.DISPATCHING:
        return Pace()
    stretches = list(_stretches(course.minutes, course.clock / MILLISECONDS))
    usual = usual_pause(stretches[:-1])
    if course.moved_at and course.clock - course.moved_at > STALLED_AFTER * usual * MILLISECONDS:
        return Pace(stalled_since=moment(course.moved_at))
    if not stretches:
        return Pace()
    rate = _rate(_without_stalls(stretches, usual))
    total = max(course.counters.resolved_device_count, course.expected or 0)
    left = total - course.counters.settled_device_count
    takes = left / rate * 60
    return Pace(
        rate, moment(course.clock) + timedelta(seconds=takes) if takes < FORESEEN.total_seconds() else None
    )


def _stretches(minutes: Sequence[Settled], now: float) -> Iterator[Stretch]:
    """What was between the first minute and now, one after another. The last one is the pause up to now."""
    if not minutes:
        return
    at: float = minutes[0].minute
    for each in minutes:
        if each.minute > at:
            yield Stretch(each.minute - at, 0)
            at = each.minute
        # The present minute is not over; and the clock may be a little behind it.
        until = max(min(each.minute + each.minutes, now), at + _SECOND)
        yield Stretch(until - at, each.number)
        at = until
    yield Stretch(max(now - at, 0), 0)


def usual_pause(stretches: Sequence[Stretch]) -> float:
    """The usual pause in minutes, at least one: how long the pause is, on average, into which a moment falls.

    So the pauses between two waves are usual, however many minutes a wave has in which devices settle one after
    another. A pause above `STALLED_AFTER` times what is usual without it was no pause but a stall.
    """
    pauses = sorted(each.minutes for each in stretches if not each.settled)
    flows = [each.minutes for each in stretches if each.settled]
    least = max(UNKNOWN_PAUSE / max(len(flows), 1), 1)
    if not flows:
        return least
    # A minute in which something settled is a pause of one minute at most.
    total, squares = sum(pauses) + sum(flows), sum(pause**2 for pause in pauses) + sum(flows)
    for longest in reversed(pauses):
        rest, rest_squares = total - longest, squares - longest**2
        if longest <= STALLED_AFTER * max(rest_squares / rest, least):
            break
        total, squares = rest, rest_squares
    return max(squares / total, least)


def _without_stalls(stretches: Sequence[Stretch], usual: float) -> list[Stretch]:
    """Stalls that are over as usual pauses: they say nothing of the pace since."""
    *over, last = stretches
    return [
        Stretch(usual, 0) if not each.settled and each.minutes > STALLED_AFTER * usual else each for each in over
    ] + [last]


def _rate(stretches: Sequence[Stretch]) -> float:
    """Device operations that settle in a minute."""
    settled = sum(each.settled for each in stretches)
    return median(settled * part / _duration(stretches, settled * part) for part in _PARTS)


def _duration(stretches: Sequence[Stretch], number: float) -> float:
    """How many minutes ago the last `number` device operations began to settle."""
    minutes = 0.0
    for each in reversed(stretches):
        if each.settled >= number:
            return minutes + each.minutes * number / each.settled
        minutes += each.minutes
        number -= each.settled
    return minutes
