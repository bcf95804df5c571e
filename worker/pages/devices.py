"""A device: its device operations, the history of each, every accepted report, its dead letters."""

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api.device_operations import DeviceId
from worker.api.operations import OperationId
from worker.api.pagination import OfHistory
from worker.config.api_tokens import Scope
from worker.model.identity import device_operation_id
from worker.pages import lists, live
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.store import activity, device_overview
from worker.store.device_overview import LatestLetters
from worker.store.pagination import Ordering, PageRequest

router = APIRouter(route_class=PageRoute, include_in_schema=False)

OPERATIONS, MOST_OPERATIONS = 10, 50
"""Device operations on a page: usually, and at most."""
MOST_LETTERS = 20
"""Dead letters of a device on its page."""

OfDevice = Annotated[Page, may(Scope.READ_DEVICE)]
OfOperation = Annotated[Page, may(Scope.READ_OPERATION)]
_reads_operations = [may(Scope.READ_OPERATION)]


def _latest_first(request: Request, wanted: OfHistory) -> PageRequest:
    is_given = "ordering" in request.query_params
    return wanted if is_given else replace(wanted, ordering=Ordering.CREATED_AT_DESCENDING)


LatestReports = Annotated[PageRequest, Depends(_latest_first)]
"""A page of accepted reports, the latest first unless the address says otherwise."""


@router.get("/devices/{device_id}", response_class=HTMLResponse, dependencies=_reads_operations)
async def show_device(page: OfDevice, request: Request, device_id: DeviceId, wanted: lists.Latest) -> HTMLResponse:
    """A device; 404 if nothing is known of it, until something is."""
    is_known = True

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        nonlocal is_known
        found = {
            **await _operations(connection, request, device_id, wanted),
            **await _letters_of_device(connection, page, device_id),
        }
        is_known = bool(found["count"] or (found["found"] and found["found"].letters))
        return {**found, "is_known": is_known}

    topics = (_topic(device_id), live.DEAD_LETTERS) if _sees_letters(page) else (_topic(device_id),)
    response = await page.whole("device.html", make, topics=topics)
    if not is_known:
        response.status_code = HTTPStatus.NOT_FOUND
    return response


@router.get("/devices/{device_id}/operations", response_class=HTMLResponse, dependencies=_reads_operations)
async def show_operations(
    page: OfDevice, request: Request, device_id: DeviceId, wanted: lists.Latest
) -> HTMLResponse:
    """The device operations alone."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _operations(connection, request, device_id, wanted)

    return await page.fragment("device_operations.html", make, topics=(_topic(device_id),))


@router.get(
    "/devices/{device_id}/dead-letters",
    response_class=HTMLResponse,
    dependencies=[may(Scope.ADMIN_DEAD_LETTERS)],
)
async def show_letters(page: OfDevice, device_id: DeviceId) -> HTMLResponse:
    """The dead letters alone."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _letters_of_device(connection, page, device_id)

    return await page.fragment("device_letters.html", make, topics=(_topic(device_id), live.DEAD_LETTERS))


@router.get("/operations/{operation_id}/devices/{device_id}", response_class=HTMLResponse)
async def show_device_operation(
    page: OfOperation, request: Request, operation_id: OperationId, device_id: DeviceId, wanted: LatestReports
) -> HTMLResponse:
    """A device operation with every accepted report; 404 if it is not registered, until it is."""
    is_registered = True

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        nonlocal is_registered
        found = await _device_operation(connection, page, request, operation_id, device_id, wanted)
        is_registered = found["row"] is not None
        return found

    response = await page.whole("device_operation.html", make, topics=(_narrowest(page, operation_id, device_id),))
    if not is_registered:
        response.status_code = HTTPStatus.NOT_FOUND
    return response


@router.get("/operations/{operation_id}/devices/{device_id}/reports", response_class=HTMLResponse)
async def show_reports(
    page: OfOperation, request: Request, operation_id: OperationId, device_id: DeviceId, wanted: LatestReports
) -> HTMLResponse:
    """What changes of the page of a device operation."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _device_operation(connection, page, request, operation_id, device_id, wanted)

    return await page.fragment(
        "device_operation_parts.html", make, topics=(_narrowest(page, operation_id, device_id),)
    )


async def _operations(
    connection: AsyncConnection, request: Request, device_id: UUID, wanted: PageRequest
) -> Mapping[str, Any]:
    limit = min(wanted.limit, MOST_OPERATIONS) if "limit" in request.query_params else OPERATIONS
    bounded = replace(wanted, limit=limit)
    found = await device_overview.page(connection, device_id, bounded)
    return {
        "device_id": device_id,
        "rows": found.results,
        "count": found.count,
        "links": lists.links(request, found, f"/devices/{device_id}"),
    }


async def _letters_of_device(connection: AsyncConnection, page: Page, device_id: UUID) -> Mapping[str, Any]:
    found: LatestLetters | None = None
    if _sees_letters(page):
        found = await device_overview.letters_of_device(connection, device_id, MOST_LETTERS)
    return {"device_id": device_id, "found": found}


async def _device_operation(
    connection: AsyncConnection,
    page: Page,
    request: Request,
    operation_id: UUID,
    device_id: UUID,
    wanted: PageRequest,
) -> dict[str, Any]:
    id_ = device_operation_id(operation_id, device_id)
    reports = await activity.page_of_received(connection, id_, wanted)
    letters: LatestLetters | None = None
    if _sees_letters(page):
        letters = await device_overview.letters_of_device_operation(connection, id_, MOST_LETTERS)
    path = f"/operations/{operation_id}/devices/{device_id}"
    return {
        "operation_id": operation_id,
        "device_id": device_id,
        "row": await device_overview.get(connection, id_),
        "reports": reports.results,
        "count": reports.count,
        "links": lists.links(request, reports, path),
        "found": letters,
        "reads_devices": Scope.READ_DEVICE in page.caller.scopes,
    }


def _narrowest(page: Page, operation_id: UUID, device_id: UUID) -> str:
    """The topic of a device operation: the device, for those who may follow it."""
    is_allowed = Scope.READ_DEVICE in page.caller.scopes
    return _topic(device_id) if is_allowed else f"{live.OPERATION}/{operation_id}"


def _topic(device_id: UUID) -> str:
    return f"{live.DEVICE}/{device_id}"


def _sees_letters(page: Page) -> bool:
    return Scope.ADMIN_DEAD_LETTERS in page.caller.scopes
