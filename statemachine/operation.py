"""State of an operation: a pure function of its counters."""

from enum import StrEnum

from statemachine.counters import Counters


class OperationState(StrEnum):
    """The state of an operation as a whole."""

    CREATED = "CREATED"
    RESOLVING = "RESOLVING"
    RESOLVED = "RESOLVED"
    DISPATCHING = "DISPATCHING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


def operation_state(counters: Counters, expected: int | None) -> OperationState:
    """Derive an operation's state; `expected` is the announced number of devices, None if unannounced."""
    registered = counters.resolved_device_count
    awaited = expected or 0
    if registered == 0:
        return OperationState.COMPLETED if expected == 0 else OperationState.CREATED
    settled = counters.settled_device_count
    if settled == registered >= awaited:
        failures = counters.failed_device_count + counters.dispatch_failed_count
        if failures and not counters.success_device_count:
            return OperationState.FAILED
        return OperationState.COMPLETED
    if counters.dispatched_device_count or settled:
        return OperationState.DISPATCHING
    if registered < awaited:
        return OperationState.RESOLVING
    return OperationState.RESOLVED
