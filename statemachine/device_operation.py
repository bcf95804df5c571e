"""The state machine of a device operation: a partial order of states, and the verdicts derived from it.

The order is declared as the steps of a `transitions` machine. A trigger of that library takes about 12 µs, so
reports are looked up in a table that is compiled from the declaration at import.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from transitions import Machine

from statemachine.states import State

STEPS = (
    (State.CREATED, State.INITIATED),
    (State.INITIATED, State.DISPATCHED),
    (State.DISPATCHED, State.PROCESSING),
    (State.PROCESSING, State.TIMEOUT),
    (State.TIMEOUT, State.SUCCESS),
    (State.SUCCESS, State.COMPLETED),
    (State.TIMEOUT, State.FAILURE),
    (State.TIMEOUT, State.CANCELLED),
)

MACHINE = Machine(
    model=None,  # one model-less machine: add_model would cost 7 KB and 190 µs for each device operation
    states=State,
    initial=State.CREATED,
    transitions=[{"trigger": above.name, "source": below, "dest": above} for below, above in STEPS],
    auto_transitions=False,  # the default adds a to_<state> trigger to every state
)
"""The direct steps of the order; the trigger of a step is the name of its target state."""


class Verdict(StrEnum):
    """Result of comparing the reported state with the current one."""

    APPLIED = "applied"
    REPEATED = "repeated"
    LATE = "late"
    CONFLICT = "conflict"


def _reachable(start: State) -> frozenset[State]:
    """The states above `start`: all states that steps lead to, directly or not."""
    found: set[State] = set()
    frontier = {start}
    while frontier:
        frontier = {State[str(step.dest)] for state in frontier for step in MACHINE.get_transitions(source=state)}
        frontier -= found
        found |= frontier
    return frozenset(found)


ABOVE: Mapping[State, frozenset[State]] = MappingProxyType({state: _reachable(state) for state in State})
"""The states above each state, that is, the states that a report may move a device operation to."""


def _compare(current: State, reported: State) -> Verdict:
    if reported == current:
        return Verdict.REPEATED
    if reported in ABOVE[current]:
        return Verdict.APPLIED
    if current in ABOVE[reported]:
        return Verdict.LATE
    return Verdict.CONFLICT


_VERDICTS = {(current, reported): _compare(current, reported) for current in State for reported in State}


def decide(current: State, reported: State) -> Verdict:
    """Compare the reported state with the current one in the partial order."""
    return _VERDICTS[current, reported]


_SHOWS_DISPATCH = frozenset(
    {
        (Verdict.APPLIED, State.DISPATCHED),
        (Verdict.APPLIED, State.PROCESSING),
        (Verdict.APPLIED, State.SUCCESS),
        (Verdict.APPLIED, State.COMPLETED),
        (Verdict.LATE, State.DISPATCHED),
        (Verdict.LATE, State.PROCESSING),
    }
)


def shows_dispatch(verdict: Verdict, reported: State) -> bool:
    """Whether a report with this verdict proves that the operation was dispatched to the device.

    A device operation's `dispatched` flag is set by the first such report and never cleared.
    """
    return (verdict, reported) in _SHOWS_DISPATCH
