"""The streams of open pages: what is committed is on them within a second, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote, urlsplit
from uuid import UUID

import pytest
from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.paging import COOKIE, signed_in
from tests.support.seed import OPERATION
from tests.support.sending import message, process, report_body
from tests.support.serving import DEVICES, TIMEOUT, Server, announce, serving, token
from worker.store.database import Database

IN_TIME = 1
"""Seconds from a commit to the page."""
OPEN_PAGES = 50


@pytest.mark.alone
async def test_a_commit_of_another_process_is_on_fifty_open_pages_within_a_second(
    deviceops: Deviceops, own_server: Server
) -> None:
    with own_server.client() as api:
        announce(api, DEVICES)
    with signed_in(own_server) as visitor:
        cookie = visitor.cookies[COOKIE]
    part = quote("operations operations /operations/rows?state=DISPATCHING,RESOLVED")
    address = f"/events?topic=operations&part={part}"
    async with AsyncExitStack() as stack:
        pages = [
            await stack.enter_async_context(open_page(own_server, address, cookie)) for _ in range(OPEN_PAGES)
        ]
        await asyncio.gather(*(until(page, b"0</data> of") for page in pages))
        await asyncio.sleep(1)
        database = Database(make_url(deviceops.settings["database_url"]))
        bodies = [report_body(UUID(OPERATION["id"]), UUID(device), "SUCCESS") for device in DEVICES[:5]]
        await process(database, [[message(body) for body in bodies]])
        committed = time.monotonic()
        seen = await asyncio.gather(*(until(page, b"5</data> of") for page in pages))
        await database.close()
    assert max(seen) - committed < IN_TIME
    own_server.stop()
    rendered = [line for line in own_server.log if line.get("path") == "/operations/rows"]
    assert 2 <= len(rendered) < OPEN_PAGES / 2


@asynccontextmanager
async def open_page(server: Server, address: str, cookie: str) -> AsyncIterator[asyncio.StreamReader]:
    """The stream of an open page."""
    url = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"GET {address} HTTP/1.1\r\nHost: {url.netloc}\r\nCookie: {COOKIE}={cookie}\r\n\r\n".encode())
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


async def until(page: asyncio.StreamReader, expected: bytes) -> float:
    """When a page shows something."""
    async with asyncio.timeout(TIMEOUT):
        while expected not in await page.readuntil(b"\n"):
            pass
    return time.monotonic()


@pytest.mark.parametrize(
    "part",
    [
        "x operations /v0/operations/",
        "x operations /events?topic=operations",
        "x operations /static/x/page.css",
        "x operations /nowhere",
        "x operations /?limit=x",
        "x operations /docs",
    ],
)
async def test_what_is_no_part_of_a_page_is_not_sent_as_one(on_sqlite: Server, part: str) -> None:
    with signed_in(on_sqlite) as visitor:
        cookie = visitor.cookies[COOKIE]
    async with open_page(on_sqlite, f"/events?topic=operations&part={quote(part)}", cookie) as page:
        await until(page, b"event: again-x")


@pytest.mark.parametrize("part", ["", "x", "x y", "x y http://a/", "x y //a/", "<x y /", "x\ny z /", "x y /\\a"])
def test_a_part_that_is_none_is_an_error(on_sqlite: Server, part: str) -> None:
    with signed_in(on_sqlite) as visitor:
        response = visitor.get("/events", params={"topic": "operations", "part": part or "-"})
        assert response.status_code == 400


async def test_a_part_that_may_not_be_seen_is_not_sent(deviceops_on_sqlite: Deviceops) -> None:
    text, setting = token(deviceops_on_sqlite, "devices", ["read:device"])
    with serving(deviceops_on_sqlite.with_settings(api_tokens=setting)) as server:
        with signed_in(server, text) as visitor:
            cookie = visitor.cookies[COOKIE]
        part = quote("x device /operations/rows")
        async with open_page(server, f"/events?topic=device/{DEVICES[0]}&part={part}", cookie) as page:
            await until(page, b"event: again-x")
