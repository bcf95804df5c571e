"""Endpoints of device operations: list, show, accepted reports, report a state or a cancellation."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic_core
from fastapi import APIRouter, Body, Path, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import SPELLINGS, State
from worker.api import pagination, responses
from worker.api.auth import requires
from worker.api.context import CalledBy, Shared
from worker.api.export import EXPORTED, ExportResponse, RequestedFormat
from worker.api.operations import OperationId, known
from worker.api.reports import IdempotencyKey, origin, refuse
from worker.api.responses import TAKES_BODY, ApiError, Content, StateConflict, errors
from worker.api.routing import Route
from worker.config.api_tokens import Scope
from worker.model.contract import Code, MomentIfReadable, Name, ReasonText, TypeName, as_state
from worker.model.dead_letter import DeadLetter
from worker.model.messages import REPORT, Message
from worker.model.outcomes import Reason
from worker.processing.direct import process_message
from worker.store import activity, documents, exports, queries
from worker.store.exports import Export

router = APIRouter(route_class=Route, prefix="/v0/operations/{operation_id}/devices", tags=["device operations"])

DeviceId = Annotated[UUID, Path(description="Id of the device.")]

CANCELLATION_REQUESTED = "CANCELLATION_REQUESTED"
_NAMES = [name for name in SPELLINGS if isinstance(name, str) and name.isupper()]
_SCHEMA_OF_STATES = {
    "anyOf": [
        {
            "title": "State",
            "type": "string",
            "enum": _NAMES,
        },
        # A pattern, since code generators would make constants of the same names from a second enumeration.
        {"title": "StateInLowerCase", "type": "string", "pattern": f"^({'|'.join(map(str.lower, _NAMES))})$"},
        {"title": "StateCode", "type": "integer", "enum": [state.value for state in State]},
    ]
}


class DeviceOperationReport(BaseModel):
    """A report of a device operation's state by a service. Unknown fields are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"operation_type": "CONVERGE", "state": "SUCCESS", "service_id": "drift-service", "reason": "test"}
            ]
        }
    )

    operation_type: TypeName | None = None
    state: Annotated[State, BeforeValidator(as_state), WithJsonSchema(_SCHEMA_OF_STATES)]
    service_id: Name
    reason: ReasonText = None
    code: Code = Field(None, description="For machines: 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    occurred_at: MomentIfReadable = Field(None, description="When the state was reached; default: now.")


class CancellationRequest(BaseModel):
    """Cancel a device operation that is not settled. `service_id` defaults to the token's name."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"state": CANCELLATION_REQUESTED, "reason": "test"}]}
    )

    operation_type: TypeName | None = None
    state: Literal["CANCELLATION_REQUESTED"]
    service_id: Name | None = None
    reason: ReasonText = None
    code: Code = Field(None, description="For machines: 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    occurred_at: MomentIfReadable = Field(None, description="When the cancellation was requested; default: now.")


class DeviceOperationPage(documents.Page[documents.DeviceOperation]):
    """A page of device operations."""


class DeviceOperationPageContent(Content[DeviceOperationPage]):
    """A page of device operations."""


class DeviceOperationContent(Content[documents.DeviceOperation]):
    """One device operation."""


class AcceptedReportPage(documents.Page[documents.AcceptedReport]):
    """A page of accepted reports."""


class AcceptedReportPageContent(Content[AcceptedReportPage]):
    """A page of accepted reports."""


def _shape(body: Any) -> str:
    state = body.get("state") if isinstance(body, dict) else getattr(body, "state", None)
    return responses.CANCELLATION if state == CANCELLATION_REQUESTED else responses.REPORT


Update = Annotated[
    Annotated[DeviceOperationReport, Tag(responses.REPORT)]
    | Annotated[CancellationRequest, Tag(responses.CANCELLATION)],
    Discriminator(_shape),
]


@router.get(
    "/",
    response_model=DeviceOperationPageContent,
    dependencies=[requires(Scope.READ_OPERATION)],
    responses={**EXPORTED, **errors(HTTPStatus.NOT_FOUND)},
)
async def list_device_operations(
    operation_id: OperationId,
    shared: Shared,
    request: Request,
    wanted: pagination.OfDeviceOperations,
    format_: RequestedFormat,
) -> DeviceOperationPageContent | ExportResponse:
    """List an operation's device operations; by default oldest first, or all of them as CSV or JSON lines.

    With filters other than `state`, `count` is at most 10,000, also if there are more.
    """
    if format_ is not None:

        async def opening(connection: AsyncConnection) -> Export:
            await known(connection, operation_id)
            return await exports.of_device_operations(connection, operation_id, wanted.chosen, format_)

        return ExportResponse(shared, opening, format_, str(operation_id))
    async with shared.database.read() as connection:
        _, progress = await known(connection, operation_id)
        page = await queries.page_of_device_operations(connection, progress, operation_id, *wanted)
    return DeviceOperationPageContent(content=pagination.document(DeviceOperationPage, page, request))


@router.get("/{device_id}/", dependencies=[requires(Scope.READ_OPERATION)], responses=errors(HTTPStatus.NOT_FOUND))
async def get_device_operation(
    operation_id: OperationId, device_id: DeviceId, shared: Shared
) -> DeviceOperationContent:
    """One device operation with the states that it reached."""
    async with shared.database.read() as connection:
        return DeviceOperationContent(content=await _known(connection, operation_id, device_id))


@router.get(
    "/{device_id}/reports/", dependencies=[requires(Scope.READ_OPERATION)], responses=errors(HTTPStatus.NOT_FOUND)
)
async def list_accepted_reports(
    operation_id: OperationId,
    device_id: DeviceId,
    shared: Shared,
    request: Request,
    page_request: pagination.OfHistory,
) -> AcceptedReportPageContent:
    """List every accepted report of a device operation: applied, late, repeated; by default oldest first."""
    async with shared.database.read() as connection:
        found = await _known(connection, operation_id, device_id)
        page = await activity.page_of_reports(connection, found.id, page_request)
    return AcceptedReportPageContent(content=pagination.document(AcceptedReportPage, page, request))


@router.put(
    "/{device_id}/",
    dependencies=[requires(Scope.UPDATE_OPERATION)],
    responses={
        HTTPStatus.OK.value: {
            "description": "Accepted; the verdict is in `X-Verdict`",
            "headers": {
                "X-Verdict": {
                    "description": "Verdict on the report.",
                    "required": True,
                    "schema": {"type": "string", "enum": ["applied", "late", "repeated", "duplicate"]},
                }
            },
        },
        **errors(HTTPStatus.NOT_FOUND, *TAKES_BODY),
    },
)
async def update_device_operation(
    operation_id: OperationId,
    device_id: DeviceId,
    update: Annotated[Update, Body()],
    shared: Shared,
    caller: CalledBy,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> DeviceOperationContent:
    """Report the state of a device operation; processed by the same rules as a message.

    CREATED registers a device operation. 404: the device operation is not registered. 400 on a conflict: `content`
    has the current and the allowed states. A rejected report is not kept as a dead letter.
    """
    is_request = isinstance(update, CancellationRequest)
    state = State.CANCELLED if isinstance(update, CancellationRequest) else update.state
    report = {
        "operation_id": operation_id,
        "device_id": device_id,
        **update.model_dump(exclude_none=True),
        "state": state.name,
        "service_id": update.service_id or caller.name,
    }
    message = Message(
        pydantic_core.to_json(report), datetime.now(UTC), idempotency_key, REPORT, origin=origin(caller)
    )
    outcome, current = await process_message(
        shared.writing, message, shared.reporters, unless_settled=is_request, note=shared.note
    )
    if isinstance(outcome, DeadLetter):
        refuse(outcome, StateConflict.of(current, state) if outcome.reason is Reason.CONFLICT else None)
    response.headers["X-Verdict"] = outcome
    # After a duplicate of a parked report there is still no device operation.
    async with shared.database.read() as connection:
        found = await _known(connection, operation_id, device_id, {"X-Verdict": outcome})
    return DeviceOperationContent(content=found)


async def _known(
    connection: AsyncConnection, operation_id: UUID, device_id: UUID, headers: Mapping[str, str] | None = None
) -> documents.DeviceOperation:
    found = await queries.get_device_operation(connection, operation_id, device_id)
    if found is None:
        message = f"device {device_id} is not registered for operation {operation_id}"
        raise ApiError(HTTPStatus.NOT_FOUND, message, headers=headers)
    return found
