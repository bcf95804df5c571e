"""A PostgreSQL that fails over to its standby: a worker finds the new primary, and loses and doubles nothing."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from tests.faults.ledger import PATIENCE
from tests.faults.outages import PAUSED, assert_told_in_turn, feeding, is_paused, said
from tests.faults.scene import NewScene, Scene
from tests.faults.trials import Result, Trials
from tests.faults.workers import Worker
from tests.support.brokering import connect, send
from tests.support.command import Deviceops
from tests.support.databases import PostgresqlServer
from tests.support.proxy import proxy_to
from tests.support.sending import ANNOUNCEMENT, announcement_body
from tests.support.services import PostgreSQLPair
from worker.config.urls import database_url as parsed

pytestmark = [pytest.mark.each_pair(full=True), pytest.mark.long]

SETTINGS = {"batch_size": 20, "database_timeout": 2}
RESUMED_WITHIN = 15
"""Seconds after there is a primary again, within which everything must be in the database."""


@pytest.fixture
def database(pair: PostgreSQLPair) -> str:
    """The name of a fresh, migrated database, which both servers have."""
    return make_url(PostgresqlServer(pair.primary.url).create()).database or ""


@pytest.fixture
def of_ledger(pair: PostgreSQLPair, database: str) -> str:
    """The URL by which a ledger reads from whichever server is the primary."""
    return parsed(SecretStr(pair.url_of(database))).get_secret_value()


@pytest.fixture
async def between(
    new_scene: NewScene, amqp_url: str, pair: PostgreSQLPair, database: str, of_ledger: str
) -> Scene:
    """A worker that is told of both servers, and its ledger."""
    return await new_scene(amqp_url, of_ledger, database_url=pair.url_of(database), **SETTINGS)


def afterwards(work: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    """What a thread does once a try is over."""
    return lambda: asyncio.to_thread(work)


def assert_resumed(result: Result, worker: Worker) -> None:
    """It took up its work in time, and in the same life."""
    assert max(result.seconds) < RESUMED_WITHIN, result.seconds
    assert worker.deaths == [0]
    assert_told_in_turn(worker.log, result.tried)


async def test_the_primary_is_killed_and_the_standby_promoted(
    trials: Trials, pair: PostgreSQLPair, between: Scene
) -> None:
    worker, ledger = between

    async def fail_over(random: Random) -> None:
        await asyncio.to_thread(pair.primary.kill)
        await is_paused(worker, ledger, random)
        await asyncio.to_thread(pair.promote)

    result = await trials.endure(
        "PostgreSQL's primary killed, standby promoted",
        fail_over,
        ledger,
        worker,
        at_rest=afterwards(pair.build_standby),
    )
    assert_resumed(result, worker)


async def test_the_primary_is_demoted_and_answers_still(
    trials: Trials, pair: PostgreSQLPair, between: Scene
) -> None:
    """Both refuse to write for a while; then the one that did so at first is the primary."""
    worker, ledger = between

    async def switch_over(random: Random) -> None:
        await asyncio.to_thread(pair.demote)
        await is_paused(worker, ledger, random)
        await asyncio.to_thread(pair.promote)

    result = await trials.endure(
        "PostgreSQL's primary demoted, both read-only",
        switch_over,
        ledger,
        worker,
        at_rest=afterwards(pair.wait_for_standby),
    )
    assert_resumed(result, worker)


@pytest.mark.parametrize(
    "named",
    [
        "one fixed address",
        pytest.param("both by fixed addresses", marks=pytest.mark.not_every_day),
    ],
)
async def test_addresses_lead_elsewhere_afterwards(
    trials: Trials,
    new_scene: NewScene,
    amqp_url: str,
    pair: PostgreSQLPair,
    database: str,
    of_ledger: str,
    named: str,
) -> None:
    """As with names of DNS, or virtual addresses, which an orchestrator has lead to other servers."""
    async with AsyncExitStack() as stack:
        ways = [await stack.enter_async_context(proxy_to("127.0.0.1", server.port)) for server in pair.servers]
        hosts = [f"127.0.0.1:{way.port}" for way in ways]
        url = (
            f"postgresql://postgres@{','.join(hosts)}/{database}?target_session_attrs=read-write"
            if named.startswith("both")
            else f"postgresql://postgres@{hosts[pair.servers.index(pair.primary)]}/{database}"
        )
        worker, ledger = await new_scene(amqp_url, of_ledger, database_url=url, **SETTINGS)

        async def swap(random: Random) -> None:
            await asyncio.to_thread(pair.demote)
            await is_paused(worker, ledger, random)
            await asyncio.to_thread(pair.promote)
            await asyncio.sleep(random.uniform(0, 2))
            targets = [way.leads_to for way in ways]
            for way, target in zip(ways, reversed(targets), strict=True):
                way.lead_to(*target)

        result = await trials.endure(
            "PostgreSQL's addresses lead elsewhere",
            swap,
            ledger,
            worker,
            at_rest=afterwards(pair.wait_for_standby),
        )
        assert_resumed(result, worker)


@pytest.mark.not_every_day
async def test_the_standby_lags_and_is_promoted(trials: Trials, pair: PostgreSQLPair, between: Scene) -> None:
    worker, ledger = between

    async def fail_over_lagging(_: Random) -> None:
        with pair.lagging():
            await ledger.arrived()
            await asyncio.to_thread(pair.primary.kill)
            await asyncio.to_thread(pair.promote)

    result = await trials.endure(
        "PostgreSQL's standby lags, then promoted",
        fail_over_lagging,
        ledger,
        worker,
        at_rest=afterwards(pair.build_standby),
    )
    assert_resumed(result, worker)


@pytest.mark.not_every_day
async def test_commits_wait_for_a_standby_that_is_frozen(
    trials: Trials, pair: PostgreSQLPair, between: Scene
) -> None:
    worker, ledger = between

    async def freeze(random: Random) -> None:
        with pair.standby.frozen():
            await is_paused(worker, ledger, random)

    result = await trials.endure("PostgreSQL's synchronous standby frozen", freeze, ledger, worker)
    assert_resumed(result, worker)


@pytest.mark.not_every_day
async def test_a_standby_that_was_away_is_promoted(trials: Trials, pair: PostgreSQLPair, between: Scene) -> None:
    """What the old primary alone had is not to be missed: none of it was acknowledged."""
    worker, ledger = between

    async def fail_over(random: Random) -> None:
        await asyncio.to_thread(pair.standby.kill)
        await is_paused(worker, ledger, random)
        await asyncio.sleep(random.uniform(0, 8))
        await asyncio.to_thread(pair.primary.kill)
        await asyncio.to_thread(pair.standby.start)
        await asyncio.to_thread(pair.promote)

    result = await trials.endure(
        "PostgreSQL's standby away, then promoted",
        fail_over,
        ledger,
        worker,
        at_rest=afterwards(pair.build_standby),
    )
    assert_resumed(result, worker)


async def test_fail_over_within_a_commit_whose_answer_is_lost(
    trials: Trials, new_scene: NewScene, amqp_url: str, pair: PostgreSQLPair, database: str, of_ledger: str
) -> None:
    async with proxy_to("127.0.0.1", pair.primary.port) as way:
        url = f"postgresql://postgres@127.0.0.1:{way.port}/{database}"
        worker, ledger = await new_scene(amqp_url, of_ledger, database_url=url, **SETTINGS)

        async def fail_over(random: Random) -> None:
            is_sent = way.lose_the_answer_to(b"COMMIT")
            async with feeding(ledger, random), asyncio.timeout(PATIENCE):
                await is_sent.wait()
            await asyncio.sleep(random.uniform(0, 0.1))  # it is at the standby by now, or will never be
            await asyncio.to_thread(pair.primary.kill)
            await asyncio.to_thread(pair.promote)
            way.lead_to("127.0.0.1", pair.primary.port)

        result = await trials.endure(
            "PostgreSQL's primary killed within a commit, standby promoted",
            fail_over,
            ledger,
            worker,
            at_rest=afterwards(pair.build_standby),
        )
        assert_resumed(result, worker)


async def test_nothing_is_acknowledged_that_only_a_lost_primary_had(
    pair: PostgreSQLPair, between: Scene, amqp_url: str, database: str
) -> None:
    """Also not what changes nothing the second time, when the first one was given up and is there nevertheless."""
    worker, ledger = between
    operations = [uuid4() for _ in range(5)]
    await asyncio.to_thread(pair.standby.kill)
    async with await connect(amqp_url) as connection:
        exchange = await (await connection.channel()).get_exchange(str(worker.settings["topology_prefix"]))
        for operation in operations:
            await send(exchange, announcement_body(operation), type=ANNOUNCEMENT)
            await send(exchange, f"no report {operation}".encode())
    await worker.until(lambda: said(worker.log, PAUSED), "paused")
    await asyncio.sleep(8)  # it has tried again by now, and found what the first try left, or could have
    await asyncio.to_thread(pair.primary.kill)
    await asyncio.to_thread(pair.standby.start)
    await asyncio.to_thread(pair.promote)
    counts = "SELECT (SELECT count(*) FROM operations) || ' ' || (SELECT count(*) FROM dead_letters)"
    await worker.until(lambda: pair.primary.value(counts, database) == "5 5", "done")
    assert await worker.stop() == 0
    assert await ledger.messages_left() == 0


def test_check_tells_the_standby_from_the_primary(
    tmp_path: Path, pair: PostgreSQLPair, database: str, amqp_url: str
) -> None:
    checked = Deviceops(tmp_path, {"database_url": pair.url_of(database), "amqp_url": amqp_url})("check")
    for server, role in ((pair.primary, "the primary"), (pair.standby, "a standby")):
        assert re.search(rf"port {server.port}: PostgreSQL .*, {role}$", checked.stdout, re.MULTILINE)
    assert not re.search("primaries|different", checked.stderr)
    assert "commits wait for no standby" not in checked.stderr
