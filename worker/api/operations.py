"""Endpoints of operations: list, show, activity, announce, retry, cancel; operations of a device."""

from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Body, Path, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api import pagination, retries
from worker.api.auth import requires
from worker.api.context import CalledBy, Shared
from worker.api.export import EXPORTED, ExportResponse, RequestedFormat
from worker.api.list_filters import ChosenOperations
from worker.api.reports import IdempotencyKey, origin, refuse
from worker.api.responses import TAKES_BODY, ApiError, Content, errors
from worker.api.routing import Route
from worker.config.api_tokens import Scope
from worker.model.contract import ReasonText
from worker.model.dead_letter import DeadLetter
from worker.model.identity import identity
from worker.model.messages import ANNOUNCEMENT, Message
from worker.model.outcomes import DUPLICATE, Tally
from worker.processing.direct import cancel_operation, process_message
from worker.store import activity, documents, exports, queries, reason_groups
from worker.store.exports import Export
from worker.store.pagination import LIMIT

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


class ReasonGroup(documents.ReasonGroup):
    """Device operations with one cause; `example` is the reason of one report, `devices` the path of their list.

    `devices` is null for the group `other`.
    """

    example: str
    devices: str | None


class ReasonGroupPage(documents.Page[ReasonGroup]):
    """A page of groups."""


class ReasonGroupPageContent(Content[ReasonGroupPage]):
    """A page of groups."""


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


@router.get(
    "/",
    response_model=OperationPage,
    dependencies=[requires(Scope.READ_OPERATION)],
    responses={**EXPORTED, **errors()},
)
async def list_operations(
    shared: Shared,
    request: Request,
    page_request: pagination.LatestFirst,
    chosen: ChosenOperations,
    format_: RequestedFormat,
) -> OperationPage | ExportResponse:
    """List operations; by default newest first, or all of them as CSV or JSON lines."""
    if format_ is not None:

        async def opening(connection: AsyncConnection) -> Export:
            return await exports.of_operations(connection, chosen, format_)

        return ExportResponse(shared, opening, format_, "operations")
    async with shared.database.read() as connection:
        page = await queries.page_of_operations(connection, chosen, page_request)
    return pagination.document(OperationPage, page, request)


@of_device.get(
    "/{device_id}/operations/",
    response_model=OperationPage,
    dependencies=[requires(Scope.READ_DEVICE)],
    responses={**EXPORTED, **errors(HTTPStatus.NOT_FOUND)},
)
async def list_operations_of_device(
    device_id: Annotated[UUID, Path(description="Id of the device.")],
    shared: Shared,
    request: Request,
    page_request: pagination.LatestFirst,
    chosen: ChosenOperations,
    format_: RequestedFormat,
) -> OperationPage | ExportResponse:
    """List the operations that have a device operation of a device; by default newest first.

    Or all of them as CSV or JSON lines.
    """
    chosen = replace(chosen, device_id=device_id)
    if format_ is not None:

        async def opening(connection: AsyncConnection) -> Export:
            export = await exports.of_operations(connection, chosen, format_)
            await _require_device(connection, device_id, export.count)
            return export

        return ExportResponse(shared, opening, format_, str(device_id))
    async with shared.database.read() as connection:
        page = await queries.page_of_operations(connection, chosen, page_request)
        await _require_device(connection, device_id, page.count)
    return pagination.document(OperationPage, page, request)


async def _require_device(connection: AsyncConnection, device_id: UUID, found: int) -> None:
    """Raise ApiError (404) for a device of which no operation was found and that is in none."""
    if not found and not await queries.is_device(connection, device_id):
        raise ApiError(HTTPStatus.NOT_FOUND, f"device {device_id} is in no operation")


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


@router.get(
    "/{operation_id}/reasons/",
    dependencies=[requires(Scope.READ_OPERATION)],
    responses=errors(HTTPStatus.NOT_FOUND),
)
async def list_reasons(
    operation_id: OperationId,
    shared: Shared,
    request: Request,
    limit: pagination.Limit = LIMIT,
    offset: pagination.Offset = 0,
) -> ReasonGroupPageContent:
    """List why device operations failed, timed out or were cancelled, grouped by cause; the largest group first.

    A report's `code` is its cause. Without one it is its reason with what differs between devices masked: UUIDs,
    numbers, times, addresses, paths and quoted text. The numbers of a state add up to its device operations.
    """
    async with shared.database.read() as connection:
        await known(connection, operation_id)
        page = await reason_groups.page(connection, operation_id, limit, offset)
    path = request.url_for("list_device_operations", operation_id=operation_id).path
    results = [_with_devices(each, path) for each in page.results]
    return ReasonGroupPageContent(
        content=pagination.document(ReasonGroupPage, page.with_results(results), request)
    )


def _with_devices(group: reason_groups.StoredGroup, path: str) -> ReasonGroup:
    found = group.document
    cause = {"reason": found.reason} if found.code is None else {"code": found.code}
    query = urlencode({"state": found.state, **cause})
    return ReasonGroup(
        **found.model_dump(), example=group.example, devices=None if group.is_other else f"{path}?{query}"
    )


@router.post(
    "/",
    status_code=HTTPStatus.CREATED,
    dependencies=[requires(Scope.UPDATE_OPERATION)],
    responses={
        HTTPStatus.OK.value: {
            "model": OperationContent,
            "description": "Duplicate: this `Idempotency-Key` came before, or the operation is that of the same "
            "retry; nothing has changed",
        },
        **errors(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, *TAKES_BODY),
    },
)
async def announce_operation(
    body: Annotated[retries.NewOperation, Body()],
    shared: Shared,
    caller: CalledBy,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> OperationContent:
    """Announce an operation, or retry those device operations of another one that have failed.

    Announcing again adds devices and replaces descriptive fields, never a state. A retry has `retry_of`, the id of
    the other operation, whose type, arguments, timeouts and threshold it takes; it creates the new operation in
    one transaction, or answers 404 or 409 and changes nothing.
    """
    if isinstance(body, retries.RetryRequest):
        is_new = await retries.retry(body, shared, caller, idempotency_key)
    else:
        message = Message(
            await request.body(),
            datetime.now(UTC),
            idempotency_key,
            ANNOUNCEMENT,
            origin=origin(caller),
        )
        outcome = (await process_message(shared.writing, message, shared.reporters, note=shared.note)).outcome
        if isinstance(outcome, DeadLetter):
            refuse(outcome)
        is_new = outcome != DUPLICATE
    async with shared.database.read() as connection:
        operation, _ = await known(connection, body.id)
    if is_new:
        response.headers["Location"] = str(request.url_for("get_operation", operation_id=operation.id))
    else:
        response.status_code = HTTPStatus.OK
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

    The reports have the token's name as their `service_id`. With an `Idempotency-Key` that came before, nothing
    changes.
    """
    async with shared.database.read() as connection:
        operation, _ = await known(connection, operation_id)
    cancelled = await cancel_operation(
        shared.writing,
        operation,
        origin(caller)(),
        service_id=caller.name,
        reason=update.reason,
        key=identity(idempotency_key),
        reporters=shared.reporters,
        note=shared.note,
    )
    if not isinstance(cancelled, Tally):
        raise ApiError(HTTPStatus.FORBIDDEN, cancelled[1])
    async with shared.database.read() as connection:
        operation, _ = await known(connection, operation_id)
    return OperationUpdated(operationId=operation.id, status=operation.state)
