"""A bad line to PostgreSQL, which breaks anywhere or swallows everything, loses nothing and doubles nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from random import Random
from typing import NamedTuple
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text

from statemachine import State, Verdict
from tests.faults.ledger import Ledger
from tests.faults.outages import (
    PAUSED,
    assert_clean,
    assert_told_once,
    feeding,
    has_paused,
    is_paused,
    said,
    session,
    waits_for_a_lock,
)
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.faults.workers import Worker
from tests.support.proxy import Proxy, proxy_to
from worker.processing.batches import retry_transient
from worker.store.bulk import WORTH_COPYING
from worker.store.database import CLOSE_TIMEOUT, Database
from worker.store.sessions import ROLLBACK_TIMEOUT
from worker.store.statements.device_operations import RECORD

LOCK = "LOCK TABLE operations IN EXCLUSIVE MODE"


class Line(NamedTuple):
    """A scene whose worker gets to the database by a proxy."""

    proxy: Proxy
    worker: Worker
    ledger: Ledger


@pytest.fixture
async def line(new_scene: NewScene, amqp_url: str, sturdy_database: str) -> AsyncIterator[Line]:
    url = make_url(sturdy_database)
    async with proxy_to(url.host or "", url.port or 5432) as proxy:
        way = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        scene = await new_scene(amqp_url, sturdy_database, database_url=way, database_timeout=2, batch_size=20)
        yield Line(proxy, *scene)


async def test_cut_at_random(trials: Trials, line: Line) -> None:
    async def cut(random: Random) -> None:
        async with feeding(line.ledger, random):
            for _ in range(20):
                line.proxy.cut()
                await asyncio.sleep(random.uniform(0, 0.1))

    await trials.endure("link to PostgreSQL cut at random", cut, line.ledger, line.worker, seconds=2)
    assert said(line.worker.log, PAUSED)
    assert_clean(line.worker.log)


async def test_cut_in_the_middle_of_an_answer(trials: Trials, line: Line) -> None:
    async def cut(random: Random) -> None:
        async with feeding(line.ledger, random):
            for _ in range(20):
                line.proxy.cut_after(random.randint(1, 1_000))
                await asyncio.sleep(random.uniform(0, 0.1))

    await trials.endure("link to PostgreSQL cut within a frame", cut, line.ledger, line.worker, seconds=2)
    assert said(line.worker.log, PAUSED)
    assert_clean(line.worker.log)


async def test_a_black_hole(trials: Trials, line: Line) -> None:
    async def swallow(random: Random) -> None:
        line.proxy.swallow = True
        await is_paused(line.worker, line.ledger, random)
        line.proxy.swallow = False

    await trials.endure("link to PostgreSQL a black hole", swallow, line.ledger, line.worker)
    assert_told_once(line.worker.log, trials.tries)


async def test_connections_forgotten_by_a_firewall(trials: Trials, line: Line) -> None:
    async def forget(random: Random) -> None:
        before = len(said(line.worker.log, PAUSED))
        line.proxy.forget()
        await has_paused(line.worker, line.ledger, random, before)

    await trials.endure("connections to PostgreSQL forgotten", forget, line.ledger, line.worker)
    assert_told_once(line.worker.log, trials.tries)


async def test_transaction_on_a_dead_line_keeps_no_locks(trials: Trials, line: Line, sturdy_database: str) -> None:
    async def forget_within(random: Random) -> None:
        before = len(said(line.worker.log, PAUSED))
        async with session(sturdy_database) as own, feeding(line.ledger, random), own.transaction():
            await own.execute(LOCK)
            while not await waits_for_a_lock(own):
                pass
            line.proxy.forget()
        await has_paused(line.worker, line.ledger, random, before)

    await trials.endure("link to PostgreSQL dead within a transaction", forget_within, line.ledger, line.worker)
    assert_clean(line.worker.log)


async def test_statement_whose_line_died_keeps_no_locks_once_it_is_tried_again(sturdy_database: str) -> None:
    url = make_url(sturdy_database)
    async with proxy_to(url.host or "", url.port or 5432) as proxy, session(sturdy_database) as own:
        database = Database(url.set(host="127.0.0.1", port=proxy.port), answer_timeout=1)

        async def work() -> None:
            async with database.write() as connection:
                await connection.execute(text("DELETE FROM operations"))

        async with asyncio.timeout(20):
            async with own.transaction():
                await own.execute(LOCK)
                trying = asyncio.create_task(retry_transient(database, None, work))
                while not await waits_for_a_lock(own):
                    pass
                proxy.forget()  # while the server has yet to read the statement, which takes locks by itself
            await trying
            async with own.transaction():
                await own.execute(LOCK)
        await database.close()


async def test_the_end_of_a_read_whose_line_died_is_given_up(sturdy_database: str) -> None:
    """The library shields the rollback at the end from being cancelled: only its own bound ends it."""
    url = make_url(sturdy_database)
    async with proxy_to(url.host or "", url.port or 5432) as proxy:
        database = Database(url.set(host="127.0.0.1", port=proxy.port))

        async def read() -> object:
            async with database.read() as connection:
                return await connection.scalar(text("SELECT 1"))

        async def forgotten() -> None:
            async with database.read() as connection:
                await connection.scalar(text("SELECT 1"))
                proxy.forget()

        reading = asyncio.create_task(forgotten())
        done, _ = await asyncio.wait({reading}, timeout=ROLLBACK_TIMEOUT + 3)
        assert done, "the read has not ended"
        assert await read() == 1
        reading.exception()
        await database.close()


@pytest.mark.parametrize("rows", [1, WORTH_COPYING])
async def test_statement_of_a_batch_whose_line_died_is_given_up_at_once(sturdy_database: str, rows: int) -> None:
    """As SQLAlchemy's own are: not only when the transaction's end, which is next on the line, hangs too."""
    url, now = make_url(sturdy_database), datetime.now(UTC)
    history = [(uuid4(), "", State.CREATED, Verdict.APPLIED, now, "drift-service", "") for _ in range(rows)]
    async with proxy_to(url.host or "", url.port or 5432) as proxy:
        database = Database(url.set(host="127.0.0.1", port=proxy.port))

        async def work() -> None:
            async with database.write() as connection:
                await connection.execute(text("SELECT 1"))
                proxy.forget()
                await RECORD.run(connection, history)

        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await database.run_with_timeout(work(), 1)
        assert time.monotonic() - began < 1 + 2 * CLOSE_TIMEOUT
        await database.close()


async def test_who_vanished_with_the_line_keeps_no_locks(sturdy_database: str) -> None:
    url = make_url(sturdy_database)
    async with proxy_to(url.host or "", url.port or 5432) as proxy:
        vanished = Database(url.set(host="127.0.0.1", port=proxy.port), answer_timeout=1)
        async with vanished.engine.connect() as connection, session(sturdy_database) as own:
            await connection.execute(text(LOCK))
            proxy.forget()
            try:
                async with (
                    asyncio.timeout(8),
                    own.transaction(),
                ):  # nobody comes back who could end that transaction
                    await own.execute(LOCK)
            finally:
                await connection.invalidate()
        await vanished.close()


async def test_slow_line(trials: Trials, line: Line) -> None:
    async def be_slow(random: Random) -> None:
        line.proxy.delay = random.uniform(0.01, 0.05)
        await asyncio.sleep(2)
        line.proxy.delay = 0

    await trials.endure("link to PostgreSQL slow", be_slow, line.ledger, line.worker, seconds=2)
    assert line.worker.deaths == [0]
    assert_clean(line.worker.log)


async def test_forgotten_connections_cost_one_timeout_together(
    sturdy_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = make_url(sturdy_database)
    async with proxy_to(url.host or "", url.port or 5432) as proxy:
        database = Database(url.set(host="127.0.0.1", port=proxy.port), answer_timeout=1)

        async def work() -> None:
            async with database.write() as connection:
                await connection.execute(text("SELECT pg_sleep(0.1)"))

        await asyncio.gather(*(work() for _ in range(4)))
        proxy.forget()
        async with asyncio.timeout(8):  # each with its own, twice the one before, they would take 15 and more
            await retry_transient(database, None, work)
        await database.close()
    assert not caplog.records, caplog.text
