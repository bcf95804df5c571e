"""The response with an export: it ends as whole ones do only if it is whole, and holds nothing for ever."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, MutableMapping
from typing import Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.support.databases import NewDatabase
from worker.api import export
from worker.api.context import MAX_EXPORTS, Context
from worker.api.export import ABORT, ExportResponse
from worker.api.feed import Feed
from worker.api.responses import ApiError
from worker.store.database import Database
from worker.store.export_lines import Format
from worker.store.exports import Export, Portion

Message = MutableMapping[str, Any]


@pytest.fixture
async def database(new_sqlite_database: NewDatabase) -> AsyncIterator[Database]:
    """A database as `serve` has it."""
    database = Database(make_url(new_sqlite_database()), limit=60)
    yield database
    await database.close()


class Client:
    """A client as the server has it: what it was sent, whether it is there, and whether it was aborted."""

    def __init__(self, taken: int = 1_000) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.has_begun = asyncio.Event()
        self.is_aborted = False
        self._taken = taken
        self.scope = {"type": "http", "path": "/export", "state": {ABORT: self.abort}}

    def abort(self) -> None:
        self.is_aborted = True
        self.gone.set()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if len(self.sent) == self._taken:
            await asyncio.Event().wait()  # it reads no more
        self.sent.append(message)
        self.has_begun.set()

    @property
    def is_whole(self) -> bool:
        """Whether the response has ended as a whole one does."""
        return self.sent[-1].get("more_body") is False


async def lines(number: int, failure: Exception | None = None) -> AsyncGenerator[Portion, None]:
    for _ in range(number):
        yield Portion(b"line\n", 1)
    if failure is not None:
        raise failure


def response(
    database: Database, failure: Exception | None = None, context: Context | None = None
) -> ExportResponse:
    async def opening(_connection: AsyncConnection) -> Export:
        return Export(3, lines(3, failure))

    context = context or Context(database, database, None, Feed(database, database), lambda _: None)
    return ExportResponse(context, opening, Format.CSV, "some")


async def test_a_whole_export_says_how_many_rows_it_has_and_ends(database: Database) -> None:
    client = Client()
    await response(database)(client.scope, client.receive, client.send)
    start, *rest = client.sent
    assert dict(start["headers"])[b"x-row-count"] == b"3"
    assert b"".join(message["body"] for message in rest) == b"line\n" * 3
    assert client.is_whole
    assert not client.is_aborted
    assert database.connections.in_use == 0


async def test_an_export_that_fails_is_aborted(database: Database) -> None:
    client = Client()
    with pytest.raises(OSError, match="lost"):
        await response(database, OSError("lost"))(client.scope, client.receive, client.send)
    assert client.is_aborted
    assert not client.is_whole
    assert database.connections.in_use == 0


async def test_a_client_that_takes_nothing_is_cut_off(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "STALLED", 0.05)
    client = Client(taken=2)
    await response(database)(client.scope, client.receive, client.send)
    assert client.is_aborted
    assert not client.is_whole
    assert database.connections.in_use == 0
    assert database.dependency.error is None  # it is not the database that failed


async def test_an_export_that_takes_too_long_is_cut_off(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LONGEST", 0.05)
    client = Client(taken=2)
    await response(database)(client.scope, client.receive, client.send)
    assert client.is_aborted
    assert not client.is_whole


async def test_an_export_ends_when_its_client_has_gone(database: Database) -> None:
    client = Client()
    client.gone.set()
    await response(database)(client.scope, client.receive, client.send)
    assert not client.is_whole
    assert database.connections.in_use == 0


async def test_some_exports_run_at_a_time_and_others_are_refused(database: Database) -> None:
    context = Context(database, database, None, Feed(database, database), lambda _: None)
    waiting = [Client(taken=1) for _ in range(MAX_EXPORTS)]
    running = [
        asyncio.create_task(response(database, context=context)(each.scope, each.receive, each.send))
        for each in waiting
    ]
    await asyncio.gather(*(each.has_begun.wait() for each in waiting))
    client = Client()
    with pytest.raises(ApiError) as refused:
        await response(database, context=context)(client.scope, client.receive, client.send)
    assert refused.value.status_code == 503
    assert not client.sent
    for each in running:
        each.cancel()
    await asyncio.wait(running)
    assert all(each.is_aborted for each in waiting)
    await response(database, context=context)(client.scope, client.receive, client.send)
    assert client.is_whole
