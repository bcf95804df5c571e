"""The device operations of an operation's page: filters in the address, pages, and all of them as a file."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api.context import MAX_EXPORTS
from worker.api.export import ExportResponse
from worker.api.list_filters import ChosenDevices
from worker.api.pagination import OfDeviceOperations
from worker.api.responses import RETRY_AFTER, ApiError
from worker.config.api_tokens import Scope
from worker.pages import lists
from worker.pages.operation.going import GROUPS, STATES, OperationId, row_of
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.store import exports, queries
from worker.store.device_filter import DeviceFilter
from worker.store.documents import Progress
from worker.store.export_lines import Format
from worker.store.exports import Export
from worker.store.listing import MAX_COUNT
from worker.store.pagination import MAX_OFFSET, Cursor, Ordering, PageRequest

router = APIRouter(route_class=PageRoute, include_in_schema=False)

LIST = "devices"
"""The id of the list in the page: where links to filtered device operations lead."""
SIZES = 20, 50, 100, 500
ORDERINGS = (
    (Ordering.CREATED_AT, "registered, oldest first"),
    (Ordering.CREATED_AT_DESCENDING, "registered, latest first"),
    (Ordering.UPDATED_AT, "updated, oldest first"),
    (Ordering.UPDATED_AT_DESCENDING, "updated, latest first"),
    (Ordering.STATE, "state"),
    (Ordering.STATE_DESCENDING, "state, backwards"),
)
_PAGING = dict.fromkeys(("limit", "offset", "ordering", "cursor", "groups"))

Unnamed = Annotated[
    bool, Query(description="Only those that failed, timed out or were cancelled without a code and a reason.")
]
"""In place of an empty `reason`: a form sends every field, so that an empty one is no filter."""


def _filter(chosen: ChosenDevices, no_reason: Unnamed = False) -> DeviceFilter:
    return replace(chosen, reason="") if no_reason else chosen


ChosenHere = Annotated[DeviceFilter, Depends(_filter)]


class Wanted(NamedTuple):
    """What the address of the page asks for."""

    chosen: DeviceFilter
    request: PageRequest
    groups: int
    """The first group of reasons."""
    ordering: Ordering | None
    """None if it is the default."""


def _wanted(
    request: Request,
    found: OfDeviceOperations,
    chosen: ChosenHere,
    groups: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="Groups of reasons to skip.")] = 0,
) -> Wanted:
    ordering = found.request.ordering if "ordering" in request.query_params else None
    page = replace(found.request, ordering=ordering or chosen.ordering)
    if page.cursor is None and not page.offset:
        page = replace(page, cursor=Cursor(None))
    return Wanted(chosen, page, groups, ordering)


Asked = Annotated[Wanted, Depends(_wanted)]


async def listed(
    connection: AsyncConnection, request: Request, operation_id: UUID, progress: Progress, wanted: Wanted
) -> Mapping[str, Any]:
    """Values of `operation_devices.html`."""
    chosen = wanted.chosen
    found = await queries.page_of_device_operations(connection, progress, operation_id, chosen, wanted.request)
    path = f"/operations/{operation_id}"
    links = lists.links(request, found, path)
    is_filtered = chosen != DeviceFilter()
    return {
        "id": operation_id,
        "devices": found.results,
        "codes": await queries.codes_of(connection, [each.id for each in found.results]),
        "count": found.count,
        "is_counted": chosen.is_of_states or found.count < MAX_COUNT,
        "is_filtered": is_filtered,
        "links": lists.Links(*(each and f"{each}#{LIST}" for each in links)),
        "exports": [
            (name, lists.address(f"{path}/export", request, **_PAGING, format=format_.value))
            for format_, name in ((Format.CSV, "CSV"), (Format.JSONL, "JSON lines"))
        ],
    }


def form(wanted: Wanted) -> Mapping[str, Any]:
    """Values of the form with the filters."""
    return {
        "chosen": wanted.chosen,
        "states": STATES,
        "ordering": wanted.ordering,
        "orderings": ORDERINGS,
        "limit": wanted.request.limit,
        "sizes": sorted({*SIZES, wanted.request.limit}),
        "groups_from": wanted.groups,
        "groups_size": GROUPS,
    }


@router.get("/operations/{operation_id}/export")
async def export(
    page: Annotated[Page, may(Scope.READ_OPERATION)],
    operation_id: OperationId,
    chosen: ChosenHere,
    format_: Annotated[Format, Query(alias="format")],
) -> Response:
    """All device operations that match the filters, as the HTTP API exports them to callers with a token."""
    async with page.reading() as connection:
        await row_of(connection, operation_id)
    if page.shared.exports.locked():  # said again when it begins, but then as JSON
        message = f"{MAX_EXPORTS} exports run already. Try again later."
        raise ApiError(503, message, headers={"Retry-After": str(RETRY_AFTER)})

    async def opening(connection: AsyncConnection) -> Export:
        return await exports.of_device_operations(connection, operation_id, chosen, format_)

    return ExportResponse(page.shared, opening, format_, str(operation_id))
