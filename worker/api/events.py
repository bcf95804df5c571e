"""Server-sent events of an operation: its counters and state whenever they change."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AwareDatetime, BaseModel

from statemachine import OperationState
from worker.api.auth import requires
from worker.api.context import Shared
from worker.api.operations import OperationId, known
from worker.api.responses import RETRY_AFTER, ApiError, errors
from worker.api.routing import Route
from worker.config.api_tokens import Scope
from worker.store import documents

router = APIRouter(route_class=Route, prefix="/v0/operations", tags=["operations"])


class OperationProgress(BaseModel):
    """Data of an event: an operation's state and counters."""

    id: UUID
    state: OperationState
    updated_at: AwareDatetime
    operation_stats: documents.OperationStats


async def _is_known(operation_id: OperationId, shared: Shared) -> UUID:
    if shared.subscriptions.is_full:
        message = "too many subscribers; try again later"
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, headers={"Retry-After": str(RETRY_AFTER)})
    async with shared.database.read() as connection:
        await known(connection, operation_id)
    return operation_id


@router.get(
    "/{operation_id}/events",
    response_class=EventSourceResponse,
    dependencies=[requires(Scope.READ_OPERATION)],
    responses=errors(HTTPStatus.NOT_FOUND),
)
async def follow_operation(
    operation_id: Annotated[UUID, Depends(_is_known)], shared: Shared
) -> AsyncIterator[ServerSentEvent]:
    """Stream server-sent events named `operation`: the current state and counters, then each change."""
    async for operation in shared.subscriptions.subscribe(operation_id):
        progress = OperationProgress.model_validate(operation, from_attributes=True)
        yield ServerSentEvent(event="operation", data=progress)
