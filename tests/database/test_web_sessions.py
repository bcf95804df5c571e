"""Sessions of the web page: one key for all processes, an end that is an end."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from sqlalchemy import func, select, update

from worker.api.context import Context
from worker.config import api_tokens
from worker.config.api_tokens import Caller, Scope, Token
from worker.pages.sessions import LASTS, Sessions
from worker.store import page_sessions
from worker.store.database import Database
from worker.store.tables import page_keys
from worker.store.tables import page_sessions as rows

TOKEN = api_tokens.create(frozenset({Scope.READ_OPERATION}))[1]
OTHER = api_tokens.create(frozenset({Scope.READ_OPERATION}))[1]
OPS = Caller("ops", TOKEN.scopes)


@dataclass
class _Databases:
    """What sessions need of the context of the HTTP API."""

    database: Database
    writing: Database


class Process:
    """A process of `serve`, with tokens in its settings."""

    def __init__(self, database: Database, tokens: Mapping[str, Token]) -> None:
        self._database = database
        self.shared = cast(Context, _Databases(database, database))
        self.sessions = Sessions(tokens)

    async def open(self) -> str:
        async with self._database.write() as connection:
            return await self.sessions.open(connection, OPS)

    async def caller(self, cookie: str | None) -> Caller | None:
        found = await self.sessions.find(self.shared, cookie)
        return None if found is None else found.caller

    async def end(self, cookie: str) -> None:
        found = await self.sessions.find(self.shared, cookie)
        assert found is not None
        async with self._database.write() as connection:
            await self.sessions.end(connection, found.id)
        self.sessions.forget(found.id)


async def test_a_session_holds_in_every_process_and_after_a_restart(database: Database) -> None:
    cookie = await Process(database, {"ops": TOKEN}).open()
    for _ in range(2):
        assert await Process(database, {"ops": TOKEN}).caller(cookie) == OPS


async def test_processes_that_begin_at_the_same_time_have_one_key(database: Database) -> None:
    processes = [Process(database, {"ops": TOKEN}) for _ in range(3)]
    keys = await asyncio.gather(*(each.sessions.key(each.shared) for each in processes))
    assert len(set(keys)) == 1
    assert len(keys[0]) == page_sessions.KEY_SIZE
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(page_keys))).scalar_one() == 1


async def test_signing_out_ends_it_for_whoever_has_a_copy_of_the_cookie(database: Database) -> None:
    process, other = (Process(database, {"ops": TOKEN}) for _ in range(2))
    cookie, kept = await process.open(), await process.open()
    await process.end(cookie)
    for each in (process, other):
        assert await each.caller(cookie) is None
        assert await each.caller(kept) == OPS


async def test_it_ends_with_its_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = await Process(database, {"ops": TOKEN}).open()
    async with database.write() as connection:
        await connection.execute(update(rows).values(expires_at=datetime.now(UTC)))
    assert await Process(database, {"ops": TOKEN}).caller(cookie) is None

    signed = await Process(database, {"ops": TOKEN}).open()
    monkeypatch.setattr("worker.pages.sessions.LASTS", timedelta(seconds=-1))  # by the signature alone
    assert await Process(database, {"ops": TOKEN}).caller(signed) is None


async def test_it_ends_with_its_token_and_has_the_scopes_that_the_token_has_now(database: Database) -> None:
    cookie = await Process(database, {"ops": TOKEN}).open()
    assert await Process(database, {}).caller(cookie) is None
    assert await Process(database, {"other": TOKEN}).caller(cookie) is None
    assert await Process(database, {"ops": OTHER}).caller(cookie) is None
    more = Token(scopes=frozenset(Scope), hash=TOKEN.hash)
    assert await Process(database, {"ops": more}).caller(cookie) == Caller("ops", frozenset(Scope))


async def test_a_cookie_that_is_not_ours_is_no_session(database: Database) -> None:
    process = Process(database, {"ops": TOKEN})
    cookie = await process.open()
    async with database.read() as connection:
        stored = (await connection.execute(select(rows.c.id))).scalar_one()
    assert stored not in cookie
    for forged in (None, "", "x", cookie[:-1], cookie + "x", "é" + cookie, stored, cookie.replace(".", "", 1)):
        assert await process.caller(forged) is None


async def test_sessions_that_have_expired_are_removed_by_those_that_follow(database: Database) -> None:
    process = Process(database, {"ops": TOKEN})
    await process.open()
    async with database.write() as connection:
        await connection.execute(update(rows).values(expires_at=datetime.now(UTC) - LASTS))
    await process.open()
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(rows))).scalar_one() == 1
