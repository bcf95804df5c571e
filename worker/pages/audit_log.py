"""The audit log: who did what on the web page, the latest first."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.config.api_tokens import Scope
from worker.pages import live
from worker.pages.lists import Links, address
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.store import audit
from worker.store.audit import Entry

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PATH = "/system/audit"
ON_A_PAGE, ON_THE_SYSTEM_PAGE = 50, 10
"""Rows."""
_LARGEST_ID = 2**63 - 1
_KINDS = {"operation": "/operations/", "device": "/devices/", "dead-letter": "/dead-letters/"}
"""Where the target of an action is shown, by the part of its name before the dot."""

Readable = Annotated[Page, may(Scope.ADMIN_DEAD_LETTERS)]


class Act(NamedTuple):
    """A row of the log, for people."""

    entry: Entry
    address: str | None
    """Of what was acted on; None if it has no page."""
    detail: str
    """JSON on one line; empty if there is none."""


async def latest(
    connection: AsyncConnection,
    limit: int = ON_THE_SYSTEM_PAGE,
    before: int | None = None,
    target: str | None = None,
) -> Sequence[Act]:
    """The latest acts, newest first; those before an id, and of one target, if they are given."""
    return [_act(entry) for entry in await audit.latest(connection, limit, before, target)]


@router.get("/system/acts", response_class=HTMLResponse)
async def show_latest(page: Readable) -> HTMLResponse:
    """The latest acts, for the system page."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return {"acts": await latest(connection)}

    return await page.fragment("audit_rows.html", make, topics=(live.SYSTEM,))


@router.get(PATH, response_class=HTMLResponse)
async def show_all(
    page: Readable,
    before: Annotated[int | None, Query(ge=1, le=_LARGEST_ID)] = None,
    target: Annotated[str | None, Query(max_length=255)] = None,
) -> HTMLResponse:
    """All acts in pages; of one target if it is given."""

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        found = await latest(connection, ON_A_PAGE + 1, before, target)
        shown, more = found[:ON_A_PAGE], found[ON_A_PAGE:]
        following = address(PATH, page.request, before=str(shown[-1].entry.id)) if more else None
        first = None if before is None else address(PATH, page.request, before=None)
        return {"acts": shown, "links": Links(None, following, first), "target": target}

    return await page.whole("audit.html", make)


def _act(entry: Entry) -> Act:
    detail = json.dumps(entry.detail, ensure_ascii=False) if entry.detail else ""
    return Act(entry, _address(entry.action, entry.target), detail)


def _address(action: str, target: str) -> str | None:
    kind = _KINDS.get(action.partition(".")[0])
    if kind is None:
        return None
    try:
        return f"{kind}{int(target) if target.isascii() and target.isdecimal() else UUID(target)}"
    except ValueError:
        return None
