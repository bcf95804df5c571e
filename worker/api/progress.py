"""Endpoint of an operation's progress: how fast it goes, when it will be over, whether it is stalled."""

from http import HTTPStatus

from fastapi import APIRouter

from worker.api.auth import requires
from worker.api.context import Shared
from worker.api.operations import OperationId
from worker.api.responses import ApiError, Content, errors
from worker.api.routing import Route
from worker.config.api_tokens import Scope
from worker.store import documents, minutes

router = APIRouter(route_class=Route, prefix="/v0/operations", tags=["operations"])


class OperationProgressContent(Content[documents.OperationProgress]):
    """How an operation goes."""


@router.get(
    "/{operation_id}/progress/",
    dependencies=[requires(Scope.READ_OPERATION)],
    responses=errors(HTTPStatus.NOT_FOUND),
)
async def get_operation_progress(operation_id: OperationId, shared: Shared) -> OperationProgressContent:
    """How an operation goes: its rate, when all will be settled, whether it is stalled, what settled when."""
    async with shared.database.read() as connection:
        course = await minutes.course_of(connection, operation_id)
    if course is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"operation {operation_id} is unknown")
    return OperationProgressContent(content=documents.OperationProgress.of(course))
