"""The states of a device operation: their names, codes, accepted spellings, and which are settled."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class State(IntEnum):
    """A device operation's state; the value is the integer code of the wire contract and of the database."""

    CREATED = 10
    INITIATED = 20
    DISPATCHED = 30
    PROCESSING = 40
    SUCCESS = 50
    FAILURE = 60
    CANCELLED = 70
    TIMEOUT = 80
    COMPLETED = 90


SETTLED = frozenset({State.TIMEOUT, State.SUCCESS, State.COMPLETED, State.FAILURE, State.CANCELLED})
"""States in which an operation does not wait for the device any more."""

_NAMES: dict[str | int, State] = {
    **{state.name: state for state in State},
    # Variants that the public API reference itself uses.
    "SUCCEEDED": State.SUCCESS,
    "SUCCEDED": State.SUCCESS,
    "FAILED": State.FAILURE,
    # Common spellings of other systems.
    "CANCELED": State.CANCELLED,
    "TIMED_OUT": State.TIMEOUT,
}
SPELLINGS: Mapping[str | int, State] = MappingProxyType(
    {
        **_NAMES,
        **{state.value: state for state in State},
        **{str(name).lower(): state for name, state in _NAMES.items()},
    }
)
"""Every spelling accepted on input. Output is always `State.name`."""
