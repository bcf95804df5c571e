"""Device counters of an operation, and the contribution of one device operation to them."""

from functools import cache
from operator import attrgetter
from typing import NamedTuple, Self

from statemachine.states import SETTLED, State

_in_settled = attrgetter(*(f"in_{state.name.lower()}" for state in SETTLED))


class Counters(NamedTuple):
    """Device counters of an operation, and the numbers of its device operations by current state."""

    resolved_device_count: int = 0
    dispatched_device_count: int = 0
    dispatch_failed_count: int = 0
    failed_device_count: int = 0
    success_device_count: int = 0
    in_created: int = 0
    in_initiated: int = 0
    in_dispatched: int = 0
    in_processing: int = 0
    in_success: int = 0
    in_failure: int = 0
    in_cancelled: int = 0
    in_timeout: int = 0
    in_completed: int = 0

    @property
    def settled_device_count(self) -> int:
        """The number of settled device operations."""
        return sum(_in_settled(self))

    def in_state(self, state: State) -> int:
        """The number of device operations in a state."""
        count: int = getattr(self, f"in_{state.name.lower()}")
        return count

    def plus(self, other: Self, times: int = 1) -> "Counters":
        """Return the counters plus `times` times `other`; a negative number subtracts."""
        return Counters(*[mine + times * theirs for mine, theirs in zip(self, other, strict=True)])


@cache  # eighteen combinations
def contribution(state: State, dispatched: bool) -> Counters:
    """Counters of one registered device operation."""
    failed = state in (State.FAILURE, State.TIMEOUT)
    return Counters(
        resolved_device_count=1,
        dispatched_device_count=int(dispatched),
        dispatch_failed_count=int(failed and not dispatched),
        failed_device_count=int(failed and dispatched),
        success_device_count=int(state in (State.SUCCESS, State.COMPLETED)),
        **{f"in_{state.name.lower()}": 1},
    )
