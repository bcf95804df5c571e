"""When device operations settled, as bars of equal periods: what the drawing and its table show."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from statemachine import OperationState, operation_state
from worker.model.minutes import HOUR, MILLISECONDS, Settled
from worker.model.pace import Course
from worker.model.timing import moment

WIDTH: Final = 1_000
HEIGHT: Final = 200
MOST_BARS: Final = 60
FEWEST_BARS: Final = 12
"""A chart of fewer begins earlier, so that one bar is not as wide as the page."""
_LOWEST: Final = 2
"""Units of a bar of anything, so that one device beside thousands is seen."""
_PERIODS: Final = (1, 2, 5, 10, 15, 30, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR)
"""Minutes of a bar."""


class Bar(NamedTuple):
    """A period: what settled in it, and its place in units from the upper left corner."""

    start: datetime
    number: int
    so_far: int
    """All that had settled by its end."""
    is_over: bool
    x: int
    width: int
    y: int
    height: int


class Chart(NamedTuple):
    """Bars in order, those before the first device settled left out."""

    bars: Sequence[Bar]
    period: int
    """Minutes of each bar."""
    start: datetime
    end: datetime
    highest: Bar

    @property
    def in_words(self) -> str:
        """The text alternative."""
        number = sum(bar.number for bar in self.bars)
        until, most = f"{self.end:%Y-%m-%d %H:%M} UTC", f"{self.highest.start:%Y-%m-%d %H:%M}"
        return (
            f"{number:,} settled from {self.bars[0].start:%Y-%m-%d %H:%M} to {until}; at most "
            f"{self.highest.number:,} in {period_in_words(self.period)}, from {most}"
        )


def period_in_words(minutes: int) -> str:
    """The length of a period, such as `5 min`."""
    return f"{minutes} min" if minutes < HOUR else f"{minutes // HOUR} h"


def chart_of(course: Course) -> Chart | None:
    """The chart of an operation; None if nothing has settled in the time for which minutes are kept."""
    settled = [each for each in course.minutes if each.number]
    if not settled:
        return None
    now = course.clock // MILLISECONDS
    first, last = settled[0].minute, max(each.minute + each.minutes - 1 for each in settled)
    if operation_state(course.counters, course.expected) == OperationState.DISPATCHING:
        last = max(last, now)
    shortest = max(each.minutes for each in settled)
    period = _period(first, last, shortest)
    begin, end = first // period, last // period
    start = min(begin, end - FEWEST_BARS + 1)
    numbers = _numbers(settled, period)
    most, width = max(numbers.values()), WIDTH // (end - start + 1)
    so_far = course.counters.settled_device_count - sum(numbers.values())
    bars = []
    for place in range(begin, end + 1):
        number = numbers.get(place, 0)
        so_far += number
        height = max(math.ceil(number * HEIGHT / most), _LOWEST) if number else 0
        x = (place - start) * WIDTH // (end - start + 1)
        bars.append(
            Bar(
                _moment(place * period),
                number,
                so_far,
                (place + 1) * period <= now,
                x,
                max(width - 2, 1),
                HEIGHT - height,
                height,
            )
        )
    highest = max(bars, key=lambda bar: bar.number)
    return Chart(bars, period, _moment(start * period), _moment((end + 1) * period), highest)


def _period(first: int, last: int, shortest: int) -> int:
    """The shortest period with which all minutes are at most `MOST_BARS`."""
    fitting = (each for each in _PERIODS if each >= shortest and last // each - first // each < MOST_BARS)
    return next(fitting, _PERIODS[-1])


def _numbers(settled: Sequence[Settled], period: int) -> dict[int, int]:
    numbers: dict[int, int] = {}
    for each in settled:
        place = each.minute // period
        numbers[place] = numbers.get(place, 0) + each.number
    return numbers


def _moment(minute: int) -> datetime:
    return moment(minute * MILLISECONDS)
