"""No session is kept that is of no use: it can only read, is closed, has old limits, or its user is locked out."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from random import Random

import asyncpg
import httpx
import pytest
from sqlalchemy import URL, make_url

from tests.faults.outages import PAUSED, assert_clean, assert_told_in_turn, is_paused, said, session
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.support.command import Deviceops
from tests.support.databases import in_a_thread
from tests.support.seed import OPERATION
from tests.support.services import PrivatePostgreSQL
from tests.support.serving import DEVICES, OF_OPERATION, OPERATIONS, PATH, REPORT, Server, events, serving

SOON = 15
"""Seconds in which all works again."""
IDLE = 0.5
"""Seconds after which a session that does nothing is ended."""
FAILS = "database unavailable, answering 503"


@pytest.fixture
def role(sturdy_database: str) -> Iterator[URL]:
    """The URL of a fresh, migrated database for a role of the test's own, which may do everything."""
    url = make_url(sturdy_database)
    name = f"role_{url.database}"
    in_a_thread(_execute(sturdy_database, f"CREATE ROLE {name} SUPERUSER LOGIN"))
    yield url.set(username=name)
    in_a_thread(_execute(sturdy_database, f"DROP ROLE {name}"))


async def _execute(database_url: str, *statements: str) -> None:
    async with session(database_url) as own:
        for statement in statements:
            await own.execute(statement)


def text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _end_sessions(role: URL) -> str:
    whose = f"datname = '{role.database}' AND pid <> pg_backend_pid()"
    return f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {whose}"  # noqa: S608


@asynccontextmanager
async def _changed(database_url: str, role: URL, there: str, back: str) -> AsyncIterator[None]:
    """For the length of a block something is otherwise, and all sessions from before have ended."""
    # From another database, as one cannot be renamed by who is in it.
    async with session(text(make_url(database_url).set(database="postgres"))) as own:
        for _ in range(50):
            await own.execute(_end_sessions(role))
            try:
                await own.execute(there)
                break
            except asyncpg.ObjectInUseError:
                await asyncio.sleep(0.1)
        await own.execute(_end_sessions(role))
        yield
        await own.execute(back)


def altered(database_url: str, role: URL, setting: str) -> AbstractAsyncContextManager[None]:
    """A role whose sessions begin with a setting."""
    alter = f"ALTER ROLE {role.username}"
    return _changed(database_url, role, f"{alter} SET {setting}", f"{alter} RESET ALL")


def renamed(database_url: str, role: URL) -> AbstractAsyncContextManager[None]:
    """A database that has another name."""
    name, other = role.database, f"{role.database}_away"
    there, back = f"ALTER DATABASE {name} RENAME TO {other}", f"ALTER DATABASE {other} RENAME TO {name}"
    return _changed(database_url, role, there, back)


def locked_out(database_url: str, role: URL) -> AbstractAsyncContextManager[None]:
    """A role that may not log in."""
    return _changed(database_url, role, f"ALTER ROLE {role.username} NOLOGIN", f"ALTER ROLE {role.username} LOGIN")


GONE = [
    pytest.param(renamed, "does not exist", id="renamed"),
    pytest.param(locked_out, "not permitted to log in", id="locked-out"),
]
TakeAway = Callable[[str, URL], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        pytest.param("default_transaction_read_only = on", "read-only transaction", id="read-only"),
        pytest.param("statement_timeout = 1", "statement timeout", id="hurried"),
    ],
)
async def test_a_worker_lets_go_of_sessions_that_began_in_a_bad_time(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, role: URL, setting: str, words: str
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database, database_url=text(role), batch_size=50)

    async def alter(random: Random) -> None:
        async with altered(sturdy_database, role, setting):
            await is_paused(worker, ledger, random)  # of those that were ended: the others are yet to come
            await worker.until(lambda: words in worker.probe("readyz")[1], f"telling of a {words}")

    result = await trials.endure(f"PostgreSQL sessions with {setting}", alter, ledger, worker)
    assert max(result.seconds) < SOON
    assert_told_in_turn(worker.log, trials.tries)


@pytest.mark.parametrize(("take_away", "words"), GONE)
async def test_a_database_that_was_there_is_waited_for_and_what_for_is_said(
    trials: Trials,
    new_scene: NewScene,
    amqp_url: str,
    sturdy_database: str,
    role: URL,
    take_away: TakeAway,
    words: str,
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database, database_url=text(role), batch_size=50)

    async def be_gone(random: Random) -> None:
        async with take_away(sturdy_database, role):
            await is_paused(worker, ledger, random)
            await worker.until(lambda: words in worker.probe("readyz")[1], "naming what it waits for")

    await trials.endure(f"PostgreSQL {take_away.__name__.replace('_', ' ')}", be_gone, ledger, worker)
    told = said(worker.log, PAUSED) + said(worker.log, "database access refused")
    assert sum(words in line["error"] for line in told) == trials.tries, worker.log
    assert_told_in_turn(worker.log, trials.tries)


async def test_a_worker_is_not_held_up_by_sessions_that_the_server_closes_when_they_are_idle(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, role: URL
) -> None:
    await _execute(sturdy_database, f"ALTER ROLE {role.username} SET idle_session_timeout = '{IDLE}s'")
    worker, ledger = await new_scene(amqp_url, sturdy_database, database_url=text(role))

    async def idle(_: Random) -> None:
        await asyncio.sleep(3 * IDLE)

    await trials.endure("PostgreSQL ends idle sessions", idle, ledger, worker, seconds=4 * IDLE, devices=2)
    assert not said(worker.log, PAUSED), worker.log
    assert_clean(worker.log)


@pytest.fixture
def deviceops(tmp_path: Path, sturdy_database: str, role: URL) -> Deviceops:
    """The command as the role, on a database that has an operation."""
    deviceops = Deviceops(tmp_path, {"database_url": sturdy_database, "database_timeout": "5"})
    announcement = {**OPERATION, "device_ids": DEVICES}
    deviceops.out("ingest", "-", lines=json.dumps({"type": "operation.announced", "body": announcement}) + "\n")
    return deviceops.with_settings(database_url=text(role))


def complaints(server: Server) -> list[str]:
    """What a server said of its databases, which are two: one for those who read, one for those who write."""
    assert all(line["level"] in ("info", "warning") for line in server.log), server.log
    return [str(line["error"]) for line in server.log if line["event"] in (FAILS, "database access refused")]


async def call(client: httpx.AsyncClient) -> set[int]:
    """The answers to a call that reads and to one that writes."""
    responses = [await client.get(OF_OPERATION), await client.put(PATH, json=REPORT)]
    return {response.status_code for response in responses}


async def is_served(client: httpx.AsyncClient) -> None:
    """Return once both get what they ask for, and meanwhile no other answer than that the database is away."""
    async with asyncio.timeout(SOON):
        while (answers := await call(client)) != {httpx.codes.OK}:
            assert answers <= {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE}
            await asyncio.sleep(0.1)


async def test_the_api_and_who_follows_it_let_go_of_sessions_that_can_only_read(
    deviceops: Deviceops, sturdy_database: str, role: URL
) -> None:
    async with AsyncExitStack() as stack:
        async with altered(sturdy_database, role, "default_transaction_read_only = on"):
            server = stack.enter_context(serving(deviceops))
            client = await stack.enter_async_context(server.async_client())
            following = await stack.enter_async_context(aclosing(events(client, f"{OF_OPERATION}events")))
            await anext(following)
            for _ in range(5):
                assert await call(client) == {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE}
        await is_served(client)
        async with asyncio.timeout(SOON):
            while (await anext(following)).successes != 1:
                pass
        assert server.stop() == 0
    assert ["read-only" in complaint for complaint in complaints(server)] == [True]


@pytest.mark.parametrize(("take_away", "words"), GONE)
async def test_the_api_says_once_that_its_database_is_gone_and_goes_on_when_it_is_back(
    deviceops: Deviceops, sturdy_database: str, role: URL, take_away: TakeAway, words: str
) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving(deviceops))
        client = await stack.enter_async_context(server.async_client())
        await is_served(client)
        async with take_away(sturdy_database, role):
            for _ in range(20):
                assert await call(client) == {httpx.codes.SERVICE_UNAVAILABLE}
            calls = [
                line for line in server.log if line["event"] == "request" and line["status"] != httpx.codes.OK
            ]
            assert words in calls[-1]["error"]
        await is_served(client)
        assert server.stop() == 0
    assert 2 <= len(complaints(server)) <= 4, complaints(server)
    assert any(words in complaint for complaint in complaints(server))


async def test_the_api_is_not_held_up_by_sessions_that_the_server_closes_when_they_are_idle(
    deviceops: Deviceops, sturdy_database: str, role: URL
) -> None:
    await _execute(sturdy_database, f"ALTER ROLE {role.username} SET idle_session_timeout = '{IDLE}s'")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving(deviceops))
        client = await stack.enter_async_context(server.async_client())
        for _ in range(3):
            assert await call(client) == {httpx.codes.OK}
            await asyncio.sleep(3 * IDLE)
        assert server.stop() == 0
    assert not [line for line in server.log if line["level"] == "warning" and "database" in line["event"]], (
        server.log
    )


async def test_the_api_uses_no_connection_that_a_restart_has_closed(
    tmp_path: Path, fragile_database: str, postgresql: PrivatePostgreSQL
) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving(Deviceops(tmp_path, {"database_url": fragile_database})))
        client = await stack.enter_async_context(server.async_client())
        for _ in range(2):
            assert (await client.post(OPERATIONS, json=OPERATION)).is_success
            assert (await client.get(OF_OPERATION)).is_success
            await asyncio.to_thread(postgresql.stop)
            await asyncio.to_thread(postgresql.start)
        assert (await client.get(OF_OPERATION)).is_success
        assert server.stop() == 0
    assert complaints(server) == []
