"""An operation's counters and state as they change: server-sent events."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AwareDatetime, BaseModel

from statemachine import OperationState
from worker.api.auth import needs
from worker.api.context import Shared
from worker.api.operations import OperationId, known
from worker.api.responses import RETRY_AFTER, Refusal, errors
from worker.api.routing import Route
from worker.config.api_tokens import Scope
from worker.store import documents

router = APIRouter(route_class=Route, prefix="/v0/operations", tags=["operations"])


class OperationProgress(BaseModel):
    """What an event tells of an operation."""

    id: UUID
    state: OperationState
    updated_at: AwareDatetime
    operation_stats: documents.OperationStats


async def _is_known(operation_id: OperationId, shared: Shared) -> UUID:
    if shared.changes.is_full:
        message = "so many follow that nobody more may; try again"
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, message, headers={"Retry-After": str(RETRY_AFTER)})
    async with shared.database.read() as connection:
        await known(connection, operation_id)
    return operation_id


@router.get(
    "/{operation_id}/events",
    response_class=EventSourceResponse,
    dependencies=[needs(Scope.READ_OPERATION)],
    responses=errors(HTTPStatus.NOT_FOUND),
)
async def follow_operation(
    operation_id: Annotated[UUID, Depends(_is_known)], shared: Shared
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events named `operation`: its counters and state as they are, and again when they change."""
    async for operation in shared.changes.follow(operation_id):
        progress = OperationProgress.model_validate(operation, from_attributes=True)
        yield ServerSentEvent(event="operation", data=progress)
