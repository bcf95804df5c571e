"""An operation's row, as decisions and consistency checks use it."""

from enum import StrEnum
from typing import NamedTuple

from statemachine import Counters
from worker.model.timing import Timing


class Task(StrEnum):
    """What is left to do for an operation, by transactions of their own."""

    ARM = "arm"
    """Its timeouts have changed: find anew when its device operations expire."""
    CANCEL = "cancel"
    """Its abort threshold was crossed: cancel every device operation that is not settled."""


class StoredOperation(NamedTuple):
    """What the state of an operation follows from, that state, and its timeouts and threshold as stored."""

    operation_type: str | None
    state: str
    expected: int | None
    """The announced number of devices."""
    counters: Counters
    timing: Timing = Timing()
    abort: str | None = None
    tripped: str | None = None
    reason: str | None = None
    """The reason to write; None keeps the stored one."""
    sequence: int = 0
    """Of its last change that is told."""
