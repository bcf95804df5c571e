"""The page of an operation, and the two parts of it that are live."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.config.api_tokens import Scope
from worker.dead_letters.readable import indented
from worker.model.text import one_line
from worker.pages import live
from worker.pages.access import LONGEST_ADDRESS
from worker.pages.operation import devices
from worker.pages.operation.devices import Asked
from worker.pages.operation.going import OperationId, going, row_of
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.store import audit
from worker.store.documents import LATEST_ACTIVITY, Operation
from worker.store.pagination import MAX_OFFSET

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ACTS = 20
"""Acts of people that are shown, the latest."""

LONGEST_DOCUMENT = 10_000
"""Characters of a document of the announcement that are shown."""

Readable = Annotated[Page, may(Scope.READ_OPERATION)]


def topics(page: Page, operation_id: UUID) -> tuple[str, ...]:
    """What the page listens to: parked reports are dead letters."""
    of_operation = f"{live.OPERATION}/{operation_id}"
    is_told = Scope.ADMIN_DEAD_LETTERS in page.caller.scopes
    return (of_operation, live.DEAD_LETTERS) if is_told else (of_operation,)


@router.get("/operations/{operation_id}", response_class=HTMLResponse)
async def show_operation(
    page: Readable, request: Request, operation_id: OperationId, wanted: Asked
) -> HTMLResponse:
    """An operation, why its devices failed, what it waits for, and its device operations by the filters."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        upper = await going(connection, operation_id, wanted.groups)
        lower = await devices.listed(connection, request, operation_id, upper["row"].progress, wanted)
        acts = await audit.latest(connection, ACTS, target=str(operation_id))
        operation = upper["row"].operation
        more = {
            "acts": acts,
            "announced": _documents(operation),
            "retried_from": _retried(operation),
            "latest_activity": LATEST_ACTIVITY,
            "longest_part": LONGEST_ADDRESS,
        }
        return {**devices.form(wanted), **upper, **lower, **more}

    return await page.whole("operation.html", make, topics=topics(page, operation_id))


@router.get("/operations/{operation_id}/going", response_class=HTMLResponse)
async def show_going(
    page: Readable,
    operation_id: OperationId,
    groups: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
) -> HTMLResponse:
    """The upper part, for the page that is open."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await going(connection, operation_id, groups)

    return await page.fragment("operation_going.html", make, topics=topics(page, operation_id))


@router.get("/operations/{operation_id}/devices", response_class=HTMLResponse)
async def show_devices(page: Readable, request: Request, operation_id: OperationId, wanted: Asked) -> HTMLResponse:
    """The list of device operations, for the page that is open."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        row = await row_of(connection, operation_id)
        return await devices.listed(connection, request, operation_id, row.progress, wanted)

    return await page.fragment("operation_devices.html", make, topics=topics(page, operation_id))


def _documents(operation: Operation) -> Sequence[tuple[str, str]]:
    """The documents of the announcement, as text: those that it has."""
    found = []
    for name in ("schedule_args", "operation_device_query", "arguments"):
        if document := getattr(operation, name):
            text = indented(to_json(document)).decode().rstrip()
            shown = "\n".join(map(one_line, text[:LONGEST_DOCUMENT].splitlines()))
            found.append((name, f"{shown}\n… the API has all of it" if len(text) > LONGEST_DOCUMENT else shown))
    return found


def _retried(operation: Operation) -> UUID | None:
    """The operation that this one retries, as its announcement says."""
    try:
        return UUID(str(operation.operation_device_query.get("retry_of")))
    except ValueError:
        return None
