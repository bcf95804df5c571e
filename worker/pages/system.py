"""The system: workers, queues, the database, changes and webhooks, what waits, versions, the latest acts."""

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.config.api_tokens import Scope
from worker.config.settings import Settings
from worker.model.changes import told
from worker.model.sharing import Peer, share
from worker.pages import audit_log, live
from worker.pages.access import pages_of
from worker.pages.broker import Look
from worker.pages.facts import PATIENCE, Found
from worker.pages.page import Page, may
from worker.pages.routing import PageRoute
from worker.store import schema, system_overview
from worker.store.system_overview import Seen

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_TOPICS = (live.SYSTEM,)

Readable = Annotated[Page, may(Scope.READ_OPERATION)]


class WorkerRow(NamedTuple):
    """A worker that was seen lately."""

    id: UUID
    seen_at: datetime
    is_gone: bool
    """Whether it has not been heard of for some seconds: it has died, stands still or has no database."""
    partitions: int | None
    """None if it shares nothing."""
    queues: Sequence[str]
    """That it consumes; empty if it has gone."""


@router.get("/system", response_class=HTMLResponse)
async def show_system(page: Readable) -> HTMLResponse:
    """All parts; what takes time to find is shown as far as it is known after half a second."""
    facts, is_admin = pages_of(page.request).facts, Scope.ADMIN_DEAD_LETTERS in page.caller.scopes
    found = await facts.found()

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return {
            **await _queues(connection, facts.settings, found.broker),
            **await _facts(connection, facts.settings, found),
            "acts": await audit_log.latest(connection) if is_admin else None,
        }

    return await page.whole("system.html", make, topics=_TOPICS)


@router.get("/system/facts", response_class=HTMLResponse)
async def show_facts(page: Readable) -> HTMLResponse:
    """What the database has."""
    facts = pages_of(page.request).facts
    found = await facts.found()

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _facts(connection, facts.settings, found)

    return await page.fragment("system_facts.html", make, topics=_TOPICS)


@router.get("/system/queues", response_class=HTMLResponse)
async def show_queues(page: Readable) -> HTMLResponse:
    """What the broker has."""
    facts = pages_of(page.request).facts
    look = await facts.broker.get(PATIENCE)

    async def make(connection: AsyncConnection) -> Mapping[str, Any]:
        return await _queues(connection, facts.settings, look)

    return await page.fragment("system_queues.html", make, topics=_TOPICS)


async def _facts(connection: AsyncConnection, settings: Settings, found: Found) -> Mapping[str, Any]:
    seen = await system_overview.seen(connection, settings.topology_prefix)
    return {
        **found._asdict(),
        "workers": worker_rows(seen, settings),
        "log": await system_overview.log(connection, settings.topology_prefix),
        "head": schema.HEAD,
        "told": told(),
        "configured": sorted(settings.webhooks or {}),
        "stale_after": settings.stale_after,
        "versions": {"deviceops": version("deviceops"), "Python": platform.python_version()},
    }


async def _queues(connection: AsyncConnection, settings: Settings, broker: Look) -> Mapping[str, Any]:
    seen = await system_overview.seen(connection, settings.topology_prefix)
    queues = broker.facts.queues if broker.facts is not None else ()
    lags = {queue.name: seen.lag(queue.name) for queue in queues}
    return {"broker": broker, "prefix": settings.topology_prefix, "lags": lags}


def worker_rows(seen: Seen, settings: Settings) -> Sequence[WorkerRow]:
    """The workers that announce themselves, with the queues that each consumes."""
    from worker.amqp.topology import Topology  # late: for few pages

    there = [each for each in seen.workers if not seen.is_gone(each.seen_at, each.gone_after)]
    peers = [Peer(each.id, each.partitions) for each in there if each.is_sharing]
    topologies = [Topology(settings.topology_prefix, peer.partitions) for peer in peers]
    names = {number: topology.queue(number) for topology in topologies for number in topology.numbers}
    alone = Topology(settings.topology_prefix)
    rows = []
    for each in seen.workers:
        is_gone, queues = each not in there, []
        if not is_gone:
            own = sorted(share(each.id, peers, names)) if each.is_sharing else ()
            queues = [names[number] for number in own] if each.is_sharing else [alone.queue(0)]
        rows.append(WorkerRow(each.id, each.seen_at, is_gone, each.partitions or None, queues))
    return rows
