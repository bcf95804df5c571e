"""The first page: operations, how far each is, how fast it goes, what is stuck. An example for other pages."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import OperationState
from worker.api.list_filters import ChosenOperations
from worker.config.api_tokens import Scope
from worker.pages import lists, live
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.store import overview
from worker.store.operation_filter import OperationFilter
from worker.store.pagination import PageRequest

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PATH, ROWS = "/", "/operations/rows"
_TOPICS = (live.OPERATIONS,)

Readable = Annotated[Page, may(Scope.READ_OPERATION)]


@router.get(PATH, response_class=HTMLResponse)
async def show_operations(
    page: Readable, request: Request, chosen: ChosenOperations, wanted: lists.Latest
) -> HTMLResponse:
    """All operations that match the filters in the address, a page at a time."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        form = {"states": list(OperationState), "chosen": chosen}
        return {**form, **await _rows(connection, request, chosen, wanted)}

    return await page.whole("operations.html", make, topics=_TOPICS)


@router.get(ROWS, response_class=HTMLResponse)
async def show_rows(
    page: Readable, request: Request, chosen: ChosenOperations, wanted: lists.Latest
) -> HTMLResponse:
    """The rows alone, at the same query, for the page that is open."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _rows(connection, request, chosen, wanted)

    return await page.fragment("operations_rows.html", make, topics=_TOPICS)


async def _rows(
    connection: AsyncConnection, request: Request, chosen: OperationFilter, wanted: PageRequest
) -> Mapping[str, Any]:
    found = await overview.page(connection, chosen, wanted)
    return {
        "rows": found.results,
        "count": found.count,
        "links": lists.links(request, found, PATH),
        "is_filtered": chosen != OperationFilter(),
        "most_parked": overview.MOST_PARKED,
        "now": datetime.now(UTC),
    }
