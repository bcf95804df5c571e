"""The states that a device operation reached, each with its earliest reported time, in one short text.

The text stands in the device operation's row, so that a document costs the same however many reports there were.
It has an entry of equal length for each state: its code, and the microseconds since the year 1 (UTC), as in
`10=0e2ff5e8c0a9a80`. Both databases can read and write that in SQL.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from statemachine import ABOVE, State

_FIRST = datetime.min.replace(tzinfo=UTC)
_LENGTH = 18
_SIXTEENTH = 1 << 60
"""A leading digit, so that the fifteen after it keep their zeros."""
_CODES = {state: f"{state:d}=" for state in State}
_STATES = {code: state for state, code in _CODES.items()}
ORDER = sorted(State, key=lambda state: -len(ABOVE[state]))
"""The states by rank, the lowest first: the one with the most states above it."""


def entry(state: State, at: datetime) -> str:
    """The entry of a state and its time."""
    since = at - _FIRST
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return _CODES[state] + hex(microseconds | _SIXTEENTH)[3:]  # which takes half of the time of a format


def noted(reached: str, state: State, at: datetime) -> str:
    """The text with one more report; unchanged unless the report names a new state or an earlier time."""
    new = entry(state, at)
    start = reached.find(_CODES[state])
    if start < 0:
        return reached + new
    end = start + _LENGTH
    return reached if reached[start:end] <= new else reached[:start] + new + reached[end:]


def read(reached: str) -> dict[State, datetime]:
    """The states and times in a text, by rank."""
    times = read_microseconds(reached).items()
    return in_order({state: _FIRST + timedelta(microseconds=microseconds) for state, microseconds in times})


def read_microseconds(reached: str) -> dict[State, int]:
    """The states and times in a text, in no order; the times in microseconds since the year 1 (UTC)."""
    starts = range(0, len(reached), _LENGTH)
    return {_STATES[reached[start : start + 3]]: int(reached[start + 3 : start + _LENGTH], 16) for start in starts}


def complete(reached: str, state: State, created_at: datetime, updated_at: datetime) -> dict[State, datetime]:
    """As `read`, for a device operation in a state, with what the text lacks of a row of an older schema."""
    times = read(reached)
    if State.CREATED in times and state in times:
        return times
    return in_order({State.CREATED: created_at, state: updated_at, **times})


def in_order(times: Mapping[State, datetime]) -> dict[State, datetime]:
    """States and times, by rank."""
    return {state: times[state] for state in ORDER if state in times}
