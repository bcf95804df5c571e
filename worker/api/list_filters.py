"""Query parameters that filter lists and exports of operations and of device operations."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Annotated, TypeVar

from fastapi import Depends, Query
from pydantic import BeforeValidator, WithJsonSchema

from statemachine import SPELLINGS, OperationState, State
from worker.model.contract import CodeText, Moment, Name, TypeName
from worker.model.state_names import unknown_state
from worker.model.text import clean, shown
from worker.store.device_filter import DeviceFilter
from worker.store.operation_filter import OperationFilter

Each = TypeVar("Each", bound=Enum)

_DEVICE_STATES = {str(spelling): state for spelling, state in SPELLINGS.items()}
_OPERATION_STATES = {state.value: state for state in OperationState}


def _parser(spellings: Mapping[str, Each], unknown: Callable[[str], str]) -> BeforeValidator:
    """A validator of a parameter that may be repeated, each with states separated by commas."""

    def parsed(values: object) -> object:
        """Parse the parameter's values. Raises ValueError on a text that is no state."""
        if not isinstance(values, list):
            return values
        texts = [text for value in values for text in value.split(",")]
        for text in texts:
            if text not in spellings:
                raise ValueError(unknown(text))
        return [spellings[text] for text in texts]

    return BeforeValidator(parsed)


def _schema(spellings: Mapping[str, object]) -> WithJsonSchema:
    one = "|".join(spellings)
    names = {"type": "string", "enum": [name for name in spellings if not name.islower()]}
    # A pattern, since code generators would make constants of the same names from a second enumeration.
    several = {"type": "string", "pattern": f"^({one})(,({one}))*$"}
    return WithJsonSchema({"type": "array", "items": {"anyOf": [names, several]}})


def _unknown_operation_state(text: str) -> str:
    return f"{shown(text)} is not a state of an operation ({', '.join(OperationState)})"


_SEVERAL = "separated by commas or as several parameters"
_DeviceStates = Annotated[
    list[State] | None,
    _parser(_DEVICE_STATES, unknown_state),
    _schema(_DEVICE_STATES),
    Query(description=f"Only device operations in these states: names or codes, {_SEVERAL}."),
]
_OperationStates = Annotated[
    list[OperationState] | None,
    _parser(_OPERATION_STATES, _unknown_operation_state),
    _schema(_OPERATION_STATES),
    Query(description=f"Only operations in these states, {_SEVERAL}."),
]


def _chosen_devices(
    state: _DeviceStates = None,
    service_id: Annotated[
        Name | None, Query(description="Only those that a report of this service moved to their state.")
    ] = None,
    code: Annotated[
        CodeText | None,
        Query(description="Only those whose report, which moved them to their state, has this code."),
    ] = None,
    reason: Annotated[
        str | None,
        Query(
            description="Only those that failed, timed out or were cancelled for this reason, without a code. "
            "What differs between devices, such as numbers and quoted text, may differ."
        ),
    ] = None,
    updated_after: Annotated[Moment | None, Query(description="Only those updated at or after this time.")] = None,
    updated_before: Annotated[Moment | None, Query(description="Only those updated before this time.")] = None,
) -> DeviceFilter:
    return DeviceFilter(
        None if state is None else frozenset(state),
        service_id,
        code,
        None if reason is None else clean(reason),
        updated_after,
        updated_before,
    )


def _chosen_operations(
    state: _OperationStates = None,
    operation_type: Annotated[
        TypeName | None, Query(description="Only operations of this type; empty for those without one.")
    ] = None,
    created_after: Annotated[
        Moment | None, Query(description="Only operations created at or after this time.")
    ] = None,
    created_before: Annotated[
        Moment | None, Query(description="Only operations created before this time.")
    ] = None,
) -> OperationFilter:
    states = None if state is None else frozenset(state)
    return OperationFilter(states, operation_type, created_after, created_before)


ChosenDevices = Annotated[DeviceFilter, Depends(_chosen_devices)]
ChosenOperations = Annotated[OperationFilter, Depends(_chosen_operations)]
