"""Example changes: some of those that the example messages cause, in this order, where all changes are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from statemachine import AbortAction, Counters, OperationState, State
from worker.asyncapi.examples import FIRST, OPERATION, SECOND, THIRD
from worker.model.changes import KINDS, ChangeType
from worker.model.outcomes import Reason

_TYPE = "CONVERGE"
_AT = "2026-01-31T08:00:01.250000Z"


@dataclass(frozen=True, slots=True)
class ChangeExample:
    """One change, and the example message that causes it."""

    name: str
    type: ChangeType
    body: Mapping[str, Any]
    cause: str
    because: str

    @property
    def routing_key(self) -> str:
        """The routing key."""
        return KINDS[self.type].routing_key.format(**{"operation_type": _TYPE, **self.body})

    @property
    def summary(self) -> str:
        """The routing key, and why, in one line."""
        return f"{self.routing_key}: {self.because}"


def _operation(
    sequence: int, state: OperationState, before: OperationState | None, **counters: int
) -> Mapping[str, Any]:
    return {
        "operation_id": OPERATION,
        "operation_type": _TYPE,
        "sequence": sequence,
        "state": state.value,
        "before": before and before.value,
        "counters": Counters(**counters)._asdict(),
        "at": _AT,
    }


def _devices(sequence: int, *changes: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"operation_id": OPERATION, "sequence": sequence, "changes": changes}


def _moved(
    device: str, state: State, before: State | None, at: str, reason: str = "", code: str | None = None
) -> Mapping[str, Any]:
    return {
        "device_id": device,
        "state": state.name,
        "before": before and before.name,
        "reason": reason,
        "code": code,
        "at": at,
    }


EXAMPLES: Sequence[ChangeExample] = (
    ChangeExample(
        "parked",
        ChangeType.DEAD_LETTERS_ADDED,
        {
            "reason": Reason.UNKNOWN_DEVICE_OPERATION.value,
            "operation_id": OPERATION,
            "service_id": "drift-service",
            "count": 1,
            "ids": [1],
            "at": _AT,
        },
        "early",
        "the report waits for the registration of its device",
    ),
    ChangeExample(
        "created",
        ChangeType.OPERATION_CHANGED,
        _operation(1, OperationState.RESOLVING, None, resolved_device_count=2, in_created=2),
        "announcement",
        "a new operation, and two of its devices",
    ),
    ChangeExample(
        "registered",
        ChangeType.DEVICE_OPERATIONS_CHANGED,
        _devices(
            1,
            _moved(FIRST, State.CREATED, None, "2026-01-31T07:59:00Z"),
            _moved(SECOND, State.CREATED, None, "2026-01-31T07:59:00Z"),
        ),
        "announcement",
        "the same transaction, by device",
    ),
    ChangeExample(
        "completed",
        ChangeType.OPERATION_CHANGED,
        _operation(
            4,
            OperationState.COMPLETED,
            OperationState.DISPATCHING,
            resolved_device_count=3,
            dispatched_device_count=3,
            failed_device_count=1,
            success_device_count=2,
            in_success=2,
            in_failure=1,
        ),
        "bulk",
        "three reports in one transaction are one change",
    ),
    ChangeExample(
        "moved",
        ChangeType.DEVICE_OPERATIONS_CHANGED,
        _devices(
            4,
            _moved(
                SECOND,
                State.FAILURE,
                State.CREATED,
                "2026-01-31T08:00:00Z",
                "no answer from the device",
                "NO_ANSWER",
            ),
            _moved(THIRD, State.SUCCESS, State.INITIATED, "2026-01-31T08:00:00Z"),
        ),
        "bulk",
        "the state of each device after the transaction, not the steps on the way",
    ),
    ChangeExample(
        "rejected",
        ChangeType.DEAD_LETTERS_ADDED,
        {
            "reason": Reason.CONFLICT.value,
            "operation_id": OPERATION,
            "service_id": "drift-service",
            "count": 1,
            "ids": [2],
            "at": _AT,
        },
        "contradiction",
        "a dead letter for people to look at",
    ),
    ChangeExample(
        "aborted",
        ChangeType.OPERATION_ABORTED,
        {
            "operation_id": OPERATION,
            "operation_type": _TYPE,
            "sequence": 5,
            "action": AbortAction.NOTIFY.value,
            "failed_percent": 10.0,
            "min_settled": 3,
            "settled": 3,
            "failed": 1,
            "reason": "abort threshold crossed: 1 of 3 settled device operations failed (33.3%); the threshold is "
            "10% of at least 3 (notify)",
            "at": _AT,
        },
        "announced-again",
        "the threshold is crossed by what has failed before",
    ),
    ChangeExample(
        "nothing-moved",
        ChangeType.DEVICE_OPERATIONS_CHANGED,
        _devices(5),
        "announced-again",
        "the sequence has no gap here either, though no device has moved",
    ),
)
