"""A PostgreSQL that breaks off a worker's transactions, or lets it in no more, has them tried again."""

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from random import Random

import asyncpg
from sqlalchemy.exc import DBAPIError

from tests.faults.outages import (
    OF_WORKERS,
    PAUSED,
    assert_clean,
    assert_told_once,
    feeding,
    is_paused,
    said,
    session,
    waits_for_a_lock,
)
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from worker.store.errors import is_transient

_END_WORKERS = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {OF_WORKERS}"  # noqa: S608
_END_TRANSACTIONS = f"{_END_WORKERS} AND xact_start IS NOT NULL"
_ROWS = "SELECT id FROM device_operations WHERE operation_id = $1"


async def test_out_of_connections(
    trials: Trials, new_scene: NewScene, amqp_url: str, fragile_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, batch_size=50)

    async def take_all(random: Random) -> None:
        async with AsyncExitStack() as others:
            own = await others.enter_async_context(session(fragile_database))
            while True:
                with suppress(asyncpg.TooManyConnectionsError):
                    while True:
                        await others.enter_async_context(session(fragile_database))
                if not await own.fetchval(_END_WORKERS):
                    break
            await is_paused(worker, ledger, random)
            await worker.until(lambda: "too many clients" in worker.probe("readyz")[1], "turned away")

    await trials.endure("PostgreSQL out of connections", take_all, ledger, worker)
    assert_told_once(worker.log, trials.tries)


async def test_transactions_are_ended_at_any_moment(
    trials: Trials, new_scene: NewScene, amqp_url: str, fragile_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, batch_size=10)
    ended = 0

    async def end_many(random: Random) -> None:
        nonlocal ended
        before = ended
        async with session(fragile_database) as own, feeding(ledger, random):
            while ended < before + 5:
                ended += await own.fetchval(_END_TRANSACTIONS)
                await asyncio.sleep(random.uniform(0, 0.02))

    await trials.endure("PostgreSQL ends transactions at random", end_many, ledger, worker, seconds=2)
    assert said(worker.log, PAUSED)
    assert_clean(worker.log)


def test_the_clients_own_error_on_a_connection_that_was_just_ended_passes() -> None:
    told = Exception("cannot switch to state 11; another operation (2) is in progress")
    told.__cause__ = asyncpg.InternalClientError(str(told))  # if the server ends it between connecting and asking

    assert is_transient(DBAPIError("SELECT 1", None, told))
    assert not is_transient(DBAPIError("SELECT 1", None, Exception("of the program")))


async def test_deadlock(trials: Trials, new_scene: NewScene, amqp_url: str, fragile_database: str) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, batch_size=50)

    async def entangle(random: Random) -> None:
        broken = len(said(worker.log, PAUSED))
        longer = {"deadlock_timeout": "1min"}  # the worker's is a second, so it is the one that notices
        async with session(fragile_database, **longer) as own, feeding(ledger, random):
            while True:
                transaction = own.transaction()
                await transaction.start()
                operation = await own.fetchval(
                    "SELECT id FROM operations ORDER BY created_at DESC LIMIT 1 FOR UPDATE"
                )
                if operation and (row := await _held_by_the_worker(own, operation)):
                    await own.execute("SELECT FROM device_operations WHERE id = $1 FOR UPDATE", row)
                    await transaction.rollback()
                    break
                await transaction.rollback()
        await worker.until(lambda: len(said(worker.log, PAUSED)) > broken, "in a deadlock")

    await trials.endure("deadlock", entangle, ledger, worker)
    assert_told_once(worker.log, trials.tries)
    assert all("deadlock detected" in line["error"] for line in said(worker.log, PAUSED)), worker.log


async def _held_by_the_worker(own: asyncpg.Connection, operation: object) -> object:
    """A device operation that a worker holds while it waits for us, None if there is none."""
    deadline = time.monotonic() + 0.3
    while not await waits_for_a_lock(own):
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(0.01)
    savepoint = own.transaction()
    await savepoint.start()
    free = await own.fetch(f"{_ROWS} FOR UPDATE SKIP LOCKED", operation)
    every = await own.fetch(_ROWS, operation)
    await savepoint.rollback()
    return next(iter({row["id"] for row in every} - {row["id"] for row in free}), None)


async def test_serialization_failures(
    trials: Trials, new_scene: NewScene, amqp_url: str, fragile_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, batch_size=10)
    _, twin = await worker.with_twins(1)

    def failures() -> int:
        return sum(
            "could not serialize" in line["error"] for log in (worker.log, twin.log) for line in said(log, PAUSED)
        )

    async def be_strict(random: Random) -> None:
        before = failures()
        async with session(fragile_database) as own, feeding(ledger, random):
            name = await own.fetchval("SELECT current_database()")
            setting = f"ALTER DATABASE {name} SET default_transaction_isolation ="
            await own.execute(f"{setting} 'serializable'")
            await own.execute(_END_WORKERS)
            await worker.until(lambda: failures() > before, "disturbed by the other one")
            await own.execute(f"{setting} DEFAULT")
            await own.execute(_END_WORKERS)

    await trials.endure("serialization failures of two workers", be_strict, ledger, worker, twin, seconds=3)
    assert_clean(worker.log + twin.log)
