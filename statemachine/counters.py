"""An operation's device counters: what one device operation contributes to them."""

from typing import NamedTuple, Self

from statemachine.states import SETTLED, State


class Counters(NamedTuple):
    """Numbers of device operations. `settled_device_count` is ours alone: the operation's state needs it."""

    resolved_device_count: int = 0
    dispatched_device_count: int = 0
    dispatch_failed_count: int = 0
    failed_device_count: int = 0
    success_device_count: int = 0
    settled_device_count: int = 0

    def plus(self, other: Self, times: int = 1) -> "Counters":
        """Add `other` to each counter, `times` over; a negative number subtracts."""
        return Counters(*(mine + times * theirs for mine, theirs in zip(self, other, strict=True)))


def contribution(state: State, dispatched: bool) -> Counters:
    """What one registered device operation adds to its operation's counters."""
    failed = state in (State.FAILURE, State.TIMEOUT)
    return Counters(
        resolved_device_count=1,
        dispatched_device_count=int(dispatched),
        dispatch_failed_count=int(failed and not dispatched),
        failed_device_count=int(failed and dispatched),
        success_device_count=int(state in (State.SUCCESS, State.COMPLETED)),
        settled_device_count=int(state in SETTLED),
    )
