"""Cancel an operation: a page that says how many device operations it is, and the act."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Verdict
from worker.api.reports import origin
from worker.config.api_tokens import Scope
from worker.model.contract import MAX_REASON
from worker.model.identity import identity
from worker.model.outcomes import Tally
from worker.model.text import clean, counted
from worker.pages import audit, live
from worker.pages.operation.going import OperationId, row_of
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.processing.direct import cancel_operation
from worker.store import audit as audit_store

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[may(Scope.READ_OPERATION)])

PATH = "/operations/{operation_id}/cancel"
ACTION = "operation.cancel"
LATEST = 50
"""Acts of an operation among which the same form is looked for."""
Acting = Annotated[Page, may(Scope.UPDATE_OPERATION)]


@router.get(PATH, response_class=HTMLResponse)
async def show_cancel(page: Acting, operation_id: OperationId) -> HTMLResponse:
    """The confirmation."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return {**await _open(connection, operation_id), "key": str(uuid4()), "longest": MAX_REASON}

    return await page.whole("operation_cancel.html", make, topics=(f"{live.OPERATION}/{operation_id}",))


@router.get(f"{PATH}/number", response_class=HTMLResponse)
async def show_number(page: Acting, operation_id: OperationId) -> HTMLResponse:
    """The number of device operations, for the confirmation that is open."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _open(connection, operation_id)

    topics = (f"{live.OPERATION}/{operation_id}",)
    return await page.fragment("operation_cancel_number.html", make, topics=topics)


@router.post(PATH)
async def cancel(
    page: Acting,
    request: Request,
    operation_id: OperationId,
    reason: Annotated[str, Form()] = "",
    key: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Cancel every device operation that is not settled. The same `key` again changes nothing more."""
    shared, address, key = page.shared, f"/operations/{operation_id}", identity(key) or str(uuid4())
    async with page.reading() as connection:
        before = await row_of(connection, operation_id)
        latest = await audit_store.latest(connection, LATEST, target=str(operation_id))
    if any(act.action == ACTION and act.detail.get("key") == key for act in latest):
        return await page.go(address, "This was sent before: nothing more was cancelled.")
    reason = clean(reason.strip())[:MAX_REASON]
    detail = {"reason": reason, "key": key}
    async with audit.acting(shared, request, ACTION, str(operation_id), detail) as outcome:
        cancelled = await cancel_operation(
            shared.writing,
            before.operation,
            origin(page.caller)(),
            service_id=page.caller.name,
            reason=reason or None,
            key=key,
            reporters=shared.reporters,
            note=shared.note,
        )
        if not isinstance(cancelled, Tally):
            outcome[audit.OUTCOME] = f"refused: {cancelled[1]}"
            return await page.go(address, f"Nothing was cancelled: {cancelled[1]}.", is_error=True)
        number = cancelled.verdicts[Verdict.APPLIED]
        outcome[audit.OUTCOME] = f"cancelled {counted(number, 'device operation')}"
    page.live.publish(f"{live.OPERATION}/{operation_id}")
    if not number:
        return await page.go(address, "Nothing was left to cancel: every device operation is settled.")
    async with page.reading() as connection:
        state = (await row_of(connection, operation_id)).operation.state
    return await page.go(address, f"Cancelled {counted(number, 'device operation')}. The operation is {state}.")


async def _open(connection: AsyncConnection, operation_id: OperationId) -> Mapping[str, Any]:
    row = await row_of(connection, operation_id)
    open_, unregistered = row.progress.open, row.progress.unregistered
    return {"row": row, "id": operation_id, "open": open_, "unregistered": unregistered}
