"""Endpoints of operations: list, show, activity, announce, cancel; operations of a device."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Body, Path, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api import pagination
from worker.api.auth import requires
from worker.api.context import CalledBy, Shared
from worker.api.reports import IdempotencyKey, origin, refuse
from worker.api.responses import TAKES_BODY, ApiError, Content, errors
from worker.api.routing import Route
from worker.config.api_tokens import Scope
from worker.model.contract import Announcement, ReasonText
from worker.model.dead_letter import DeadLetter
from worker.model.identity import identity
from worker.model.messages import ANNOUNCEMENT, Message
from worker.model.outcomes import DUPLICATE
from worker.processing.direct import cancel_operation, process_message
from worker.store import activity, documents, queries

router = APIRouter(route_class=Route, prefix="/v0/operations", tags=["operations"])
of_device = APIRouter(route_class=Route, prefix="/v0/devices", tags=["operations"])

OperationId = Annotated[UUID, Path(description="Id of the operation.")]


class OperationPage(documents.Page[documents.Operation]):
    """A page of operations."""


class OperationContent(Content[documents.Operation]):
    """One operation."""


class OperationActivityPage(documents.Page[documents.OperationActivity]):
    """A page of an operation's history."""


class OperationActivityPageContent(Content[OperationActivityPage]):
    """A page of an operation's history."""


class OperationUpdate(BaseModel):
    """Request to cancel an operation."""

    state: Literal["CANCELLED"]
    reason: ReasonText = Field(None, description="Reason, kept with each cancelled device operation.")


class OperationUpdated(BaseModel):
    """State of the operation after the update."""

    operationId: UUID  # noqa: N815  # the public reference's key
    status: str


async def known(connection: AsyncConnection, operation_id: UUID) -> tuple[documents.Operation, documents.Progress]:
    """Return an operation. Raises ApiError (404) if it is unknown."""
    found = await queries.get_operation(connection, operation_id)
    if found is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"operation {operation_id} is unknown")
    return found


@router.get("/", dependencies=[requires(Scope.READ_OPERATION)], responses=errors())
async def list_operations(
    shared: Shared,
    request: Request,
    page_request: pagination.LatestFirst,
    state: pagination.StateOfOperation = None,
) -> OperationPage:
    """List operations; by default newest first."""
    async with shared.database.read() as connection:
        page = await queries.page_of_operations(connection, state, page_request)
    return pagination.document(OperationPage, page, request)


@of_device.get(
    "/{device_id}/operations/", dependencies=[requires(Scope.READ_DEVICE)], responses=errors(HTTPStatus.NOT_FOUND)
)
async def list_operations_of_device(
    device_id: Annotated[UUID, Path(description="Id of the device.")],
    shared: Shared,
    request: Request,
    page_request: pagination.LatestFirst,
    state: pagination.StateOfOperation = None,
) -> OperationPage:
    """List the operations that have a device operation of a device; by default newest first."""
    async with shared.database.read() as connection:
        page = await queries.page_of_operations(connection, state, page_request, device_id)
        if not page.count and not await queries.is_device(connection, device_id):
            raise ApiError(HTTPStatus.NOT_FOUND, f"device {device_id} is in no operation")
    return pagination.document(OperationPage, page, request)


@router.get(
    "/{operation_id}/", dependencies=[requires(Scope.READ_OPERATION)], responses=errors(HTTPStatus.NOT_FOUND)
)
async def get_operation(operation_id: OperationId, shared: Shared) -> OperationContent:
    """One operation with its counters."""
    async with shared.database.read() as connection:
        operation, _ = await known(connection, operation_id)
    return OperationContent(content=operation)


@router.get(
    "/{operation_id}/activity/",
    dependencies=[requires(Scope.READ_OPERATION)],
    responses=errors(HTTPStatus.NOT_FOUND),
)
async def list_operation_activity(
    operation_id: OperationId,
    shared: Shared,
    request: Request,
    page_request: pagination.OfHistory,
) -> OperationActivityPageContent:
    """List every state that an operation reached; by default oldest first."""
    async with shared.database.read() as connection:
        await known(connection, operation_id)
        page = await activity.page_of_activity(connection, operation_id, page_request)
    return OperationActivityPageContent(content=pagination.document(OperationActivityPage, page, request))


@router.post(
    "/",
    status_code=HTTPStatus.CREATED,
    dependencies=[requires(Scope.UPDATE_OPERATION)],
    responses={
        HTTPStatus.OK.value: {
            "model": OperationContent,
            "description": "Duplicate of an announcement with the same `Idempotency-Key`; nothing has changed",
        },
        **errors(*TAKES_BODY),
    },
)
async def announce_operation(
    announcement: Annotated[Announcement, Body()],
    shared: Shared,
    caller: CalledBy,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> OperationContent:
    """Announce an operation. Announcing again adds devices and replaces descriptive fields, never a state."""
    message = Message(
        await request.body(),
        datetime.now(UTC),
        idempotency_key,
        ANNOUNCEMENT,
        origin=origin(caller),
    )
    outcome = (await process_message(shared.writing, message, shared.reporters)).outcome
    if isinstance(outcome, DeadLetter):
        refuse(outcome)
    async with shared.database.read() as connection:
        operation, _ = await known(connection, announcement.id)
    if outcome == DUPLICATE:
        response.status_code = HTTPStatus.OK
    else:
        response.headers["Location"] = str(request.url_for("get_operation", operation_id=operation.id))
    return OperationContent(content=operation)


@router.put(
    "/{operation_id}/",
    dependencies=[requires(Scope.UPDATE_OPERATION)],
    responses=errors(HTTPStatus.NOT_FOUND, *TAKES_BODY),
)
async def update_operation(
    operation_id: OperationId,
    update: Annotated[OperationUpdate, Body()],
    shared: Shared,
    caller: CalledBy,
    idempotency_key: IdempotencyKey = None,
) -> OperationUpdated:
    """Cancel every unsettled device operation of an operation, in one transaction.

    The reports have the token's name as their `service_id`.
    """
    async with shared.database.read() as connection:
        operation, _ = await known(connection, operation_id)
    denial = await cancel_operation(
        shared.writing,
        operation,
        origin(caller)(),
        service_id=caller.name,
        reason=update.reason,
        key=identity(idempotency_key) or str(uuid4()),
        reporters=shared.reporters,
    )
    if denial is not None:
        raise ApiError(HTTPStatus.FORBIDDEN, denial[1])
    async with shared.database.read() as connection:
        operation, _ = await known(connection, operation_id)
    return OperationUpdated(operationId=operation.id, status=operation.state)
