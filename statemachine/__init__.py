"""The rules of deviceops, pure: no I/O, no clock, no dependency but `transitions`.

- `states`: the states of a device operation
- `device_operation`: their partial order, and the verdict on a report
- `counters`: device counters of an operation, and the contribution of a device operation
- `operation`: state of an operation, derived from its counters
- `timeouts`: when a device operation is timed out
- `threshold`: when an operation is aborted because too many devices failed
- `diagram`: the state machine as a Mermaid diagram
"""

from statemachine.counters import Counters, contribution
from statemachine.device_operation import ABOVE, MACHINE, Verdict, decide, shows_dispatch
from statemachine.operation import OperationState, operation_state
from statemachine.states import SETTLED, SPELLINGS, State
from statemachine.threshold import AbortAction, Threshold, failed
from statemachine.timeouts import Expiry, Kind, Timeouts, Times, expiry

__all__ = [
    "ABOVE",
    "MACHINE",
    "SETTLED",
    "SPELLINGS",
    "AbortAction",
    "Counters",
    "Expiry",
    "Kind",
    "OperationState",
    "State",
    "Threshold",
    "Timeouts",
    "Times",
    "Verdict",
    "contribution",
    "decide",
    "expiry",
    "failed",
    "operation_state",
    "shows_dispatch",
]
