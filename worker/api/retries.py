"""Retries over HTTP: a body that creates an operation is an announcement, or a retry if it has `retry_of`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag
from pydantic import WithJsonSchema as Schema

from statemachine import SPELLINGS, State
from worker.api import responses
from worker.api.context import Context
from worker.api.reports import origin
from worker.api.responses import ApiError
from worker.config.api_tokens import Caller
from worker.model.contract import MAX_REASON, Announcement, CodeText, Id, Name, as_state
from worker.model.identity import identity
from worker.processing.retry import FAILED, RETRYABLE, Obstacle, Refused, Retry, retry_operation

_NAMES = sorted(str(name) for name, state in SPELLINGS.items() if state in RETRYABLE and str(name).isupper())
_STATES = ", ".join(state.name for state in sorted(RETRYABLE))


def _retryable(value: object) -> State:
    state = as_state(value)
    if state not in RETRYABLE:
        raise ValueError(f"{state.name} cannot be retried, only {_STATES}")
    return state


Retryable = Annotated[
    State,
    BeforeValidator(_retryable),
    Schema({"title": "RetriedState", "type": "string", "enum": _NAMES}),
]
Reason = Annotated[str, StringConstraints(max_length=MAX_REASON, pattern=r"^[^\x00]*$")]


class RetryRequest(BaseModel):
    """A new operation for those device operations of another one that its filters find. Fields of other names are
    errors, as a filter that is not understood would retry more than is meant.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "retry_of": "497f6eca-6276-4993-bfeb-53cbbbba6f08",
                    "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
                    "state": ["FAILURE"],
                    "code": "DISK_FULL",
                }
            ]
        },
    )

    retry_of: Annotated[Id, Field(description="The operation that is retried.")]
    id: Annotated[
        Id, Field(description="Of the new operation. The same retry with the same id creates no second one.")
    ]
    state: Annotated[
        list[Retryable] | None,
        Field(min_length=1, description="The states that are retried; default: FAILURE and TIMEOUT."),
    ] = None
    code: Annotated[CodeText | None, Field(description="Only those whose state was reported with this code.")] = (
        None
    )
    service_id: Annotated[Name | None, Field(description="Only those whose state this service reported.")] = None
    reason: Annotated[
        Reason | None,
        Field(
            description="Only those without a code, and with this reason but for what differs between devices; "
            "empty for those without a reason."
        ),
    ] = None


def _shape(body: Any) -> str:
    retried = body.get("retry_of") if isinstance(body, dict) else getattr(body, "retry_of", None)
    return responses.ANNOUNCEMENT if retried is None else responses.RETRY


NewOperation = Annotated[
    Annotated[Announcement, Tag(responses.ANNOUNCEMENT)] | Annotated[RetryRequest, Tag(responses.RETRY)],
    Discriminator(_shape),
]
"""The body of the call that creates an operation."""

_STATUS: Final[Mapping[Obstacle, HTTPStatus]] = {
    Obstacle.UNKNOWN: HTTPStatus.NOT_FOUND,
    Obstacle.SAME: HTTPStatus.BAD_REQUEST,
    Obstacle.TAKEN: HTTPStatus.CONFLICT,
    Obstacle.NOTHING: HTTPStatus.CONFLICT,
    Obstacle.DENIED: HTTPStatus.FORBIDDEN,
}


async def retry(request: RetryRequest, shared: Context, caller: Caller, key: str | None) -> bool:
    """Retry an operation; returns whether the new one was created now. Raises ApiError if it cannot be."""
    wanted = Retry(
        request.retry_of,
        request.id,
        FAILED if request.state is None else frozenset(request.state),
        request.code,
        request.service_id,
        request.reason,
        identity(key),
    )
    outcome = await retry_operation(
        shared.writing, wanted, origin(caller)(), reporters=shared.reporters, note=shared.note
    )
    if isinstance(outcome, Refused):
        raise ApiError(_STATUS[outcome.obstacle], outcome.detail)
    return outcome.is_new
