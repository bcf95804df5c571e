"""The domain of deviceops, pure: no I/O, no clock, no framework but `transitions`.

- `states`: the states of a device operation
- `device_operation`: their partial order and the verdict on a report
- `counters`: what a device operation contributes to its operation's counters
- `operation`: an operation's state from its counters
- `diagram`: the machine drawn
"""

from statemachine.counters import Counters, contribution
from statemachine.device_operation import ABOVE, MACHINE, Verdict, decide, shows_dispatch
from statemachine.operation import OperationState, operation_state
from statemachine.states import SETTLED, SPELLINGS, State

__all__ = [
    "ABOVE",
    "MACHINE",
    "SETTLED",
    "SPELLINGS",
    "Counters",
    "OperationState",
    "State",
    "Verdict",
    "contribution",
    "decide",
    "operation_state",
    "shows_dispatch",
]
