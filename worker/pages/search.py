"""The search by id: what an id, or the beginning of one, is of."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.config.api_tokens import Scope
from worker.model.id_range import IdRange, id_range
from worker.model.text import one_line
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.store import search

router = APIRouter(route_class=PageRoute, include_in_schema=False)

MOST = 20
"""Results of each kind."""


_NEEDED = {Scope.READ_DEVICE: "devices", Scope.ADMIN_DEAD_LETTERS: "dead letters"}


@router.get("/search", response_class=HTMLResponse)
async def show_results(
    page: Annotated[Page, may(Scope.READ_OPERATION)],
    q: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """What the id is of; the only thing itself, if there is one."""
    wanted, problem = _parsed(q.strip())
    scopes = page.caller.scopes
    async with page.reading() as connection:
        found = await search.find(
            connection,
            wanted,
            int(q) if q.strip().isascii() and q.strip().isdecimal() else None,
            MOST,
            devices=Scope.READ_DEVICE in scopes,
            dead_letters=Scope.ADMIN_DEAD_LETTERS in scopes,
        )
    addresses = [
        *((f"/operations/{id_}", "operation", id_) for id_ in found.operations),
        *((f"/devices/{id_}", "device", id_) for id_ in found.devices),
        *((f"/dead-letters/{id_}", "dead letter", id_) for id_ in found.dead_letters),
    ]
    if len(addresses) == 1:
        return RedirectResponse(addresses[0][0], HTTPStatus.SEE_OTHER)

    async def make(_: AsyncConnection) -> dict[str, Any]:
        return {
            "q": one_line(q),
            "problem": problem if not addresses else "",
            "results": addresses,
            "most": MOST,
            "unseen": [f"{kind} ({scope})" for scope, kind in _NEEDED.items() if scope not in scopes],
        }

    return await page.whole("search.html", make)


def _parsed(text: str) -> tuple[IdRange | None, str]:
    try:
        return id_range(text), ""
    except ValueError as error:
        return None, str(error)
