"""A page whose server or database goes away says so, and follows again once it is back."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support.browsing.browser import Browser
from tests.support.command import Deviceops
from tests.support.databases import NewDatabase, in_a_thread
from tests.support.sending import DEVICES, OPERATIONS, announcement_body
from tests.support.serving import Server, serving, token

FIRST, SECOND = OPERATIONS[:2]
END_CONNECTIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"


def announce(deviceops: Deviceops, operation: UUID) -> None:
    line = json.dumps({"type": "operation.announced", "body": announcement_body(operation, DEVICES)})
    deviceops.out("ingest", "-", lines=line)


@contextmanager
def started(deviceops: Deviceops, text_: str) -> Iterator[Server]:
    with deviceops.start("serve") as process:
        server = Server(process, text_)
        try:
            yield server
        finally:
            server.stop()


def test_a_server_that_goes_away_and_comes_back(browser: Browser, deviceops_on_sqlite: Deviceops) -> None:
    secret, setting = token(deviceops_on_sqlite, "operator")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    deviceops = deviceops_on_sqlite.with_settings(api_tokens=setting, http_port=port, http_probe_port="0")
    announce(deviceops, FIRST)
    with started(deviceops, secret) as server:
        browser.site = server.url
        browser.sign_in(secret)
        browser.wait_for(str(FIRST)[:8])
    browser.wait_for("The server does not answer. This page tries again by itself.", str(FIRST)[:8])
    browser.assert_presentable()
    announce(deviceops, SECOND)
    with started(deviceops, secret):
        browser.wait_for(str(SECOND)[:8], seconds=30)
        browser.until(lambda: "does not answer" not in browser.text, "the notice is taken back")
        browser.close()
    browser.console.clear()  # connections that were refused


def test_a_database_that_goes_away_and_comes_back(
    browser: Browser, deviceops_on_sqlite: Deviceops, new_postgresql_database: NewDatabase
) -> None:
    url = make_url(new_postgresql_database())
    deviceops = deviceops_on_sqlite.with_settings(database_url=url.render_as_string(hide_password=False))
    announce(deviceops, FIRST)
    with serving(deviceops) as server:
        browser.site = server.url
        browser.sign_in(server.token)
        browser.wait_for(str(FIRST)[:8])
        in_a_thread(let_in(url, allowed=False))
        try:
            browser.wait_for("The database does not answer. This page tries again by itself.", str(FIRST)[:8])
            browser.open(f"/operations/{FIRST}")
            browser.wait_for("The database does not answer.")
            browser.assert_presentable()
        finally:
            in_a_thread(let_in(url, allowed=True))
        browser.wait_for("Done to it on these pages", seconds=30)
        browser.close()
    browser.console.clear()  # 503, and what the streams said


async def let_in(url: URL, *, allowed: bool) -> None:
    """Refuse connections to a database and end those that there are, or accept them again."""
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg", database="postgres"), isolation_level="AUTOCOMMIT"
    )
    async with engine.connect() as connection:
        await connection.execute(text(f'ALTER DATABASE "{url.database}" WITH ALLOW_CONNECTIONS {allowed}'))
        if not allowed:
            await connection.execute(text(END_CONNECTIONS), {"name": url.database})
    await engine.dispose()
