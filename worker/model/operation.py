"""An operation's row, as decisions and consistency checks use it."""

from typing import NamedTuple

from statemachine import Counters


class StoredOperation(NamedTuple):
    """What the state of an operation follows from, and that state."""

    operation_type: str | None
    state: str
    expected: int | None
    """The announced number of devices."""
    counters: Counters
