"""A worker that is told to stop leaves in time, with 0, and what it had not committed comes again."""

import asyncio
import signal
import time
from random import Random

from tests.faults.locking import a_batch_waits, locked
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.support.databases import NewDatabase

SLACK = 3
"""Seconds that a busy machine may add to a deadline."""


async def test_stopped_under_load_it_acknowledges_what_it_committed(
    trials: Trials, new_scene: NewScene, amqp_url: str, database_url: str
) -> None:
    worker, ledger = await new_scene(amqp_url, database_url, batch_size=20)

    async def stop_and_start(random: Random) -> None:
        for _ in range(3):
            began = time.monotonic()
            assert await worker.stop() == 0
            assert time.monotonic() - began < 25 + SLACK
            worker.start()
            await worker.is_ready()
            await asyncio.sleep(random.uniform(0, 0.3))

    await trials.endure("worker stopped in order, three times", stop_and_start, ledger, worker, seconds=3)
    assert set(worker.deaths) == {0}
    assert "messages returned to the broker before the commit, to be redelivered" not in worker.events


async def test_a_batch_that_cannot_commit_in_time_is_given_back(
    trials: Trials, new_scene: NewScene, amqp_url: str, new_postgresql_database: NewDatabase
) -> None:
    url = new_postgresql_database()
    worker, ledger = await new_scene(amqp_url, url, drain_timeout=2)

    async def stop(_: Random) -> None:
        async with locked(url) as connection:
            await a_batch_waits(connection)
            began = time.monotonic()
            assert await worker.stop() == 0
            assert time.monotonic() - began < 2 + SLACK
            assert "messages returned to the broker before the commit, to be redelivered" in worker.events
        worker.start()

    await trials.endure("worker stopped with a batch that cannot commit", stop, ledger, worker, seconds=2)


async def test_a_second_signal_ends_it_at_once(
    trials: Trials, new_scene: NewScene, amqp_url: str, new_postgresql_database: NewDatabase
) -> None:
    url = new_postgresql_database()
    worker, ledger = await new_scene(amqp_url, url)

    async def insist(_: Random) -> None:
        before = len(worker.deaths)
        async with locked(url) as connection:
            await a_batch_waits(connection)
            worker.signal(signal.SIGTERM)
            await worker.until(lambda: "is stopping" in worker.probe("readyz")[1], "stopping")
            worker.signal(signal.SIGTERM)
            began = time.monotonic()
            await worker.has_died(before + 1)
            assert time.monotonic() - began < SLACK
        assert worker.deaths[before] == -signal.SIGTERM

    await trials.endure("worker told twice to stop", insist, ledger, worker, seconds=2)


async def test_two_workers_are_restarted_one_after_the_other(
    trials: Trials, new_scene: NewScene, amqp_url: str, new_postgresql_database: NewDatabase
) -> None:
    first, ledger = await new_scene(amqp_url, new_postgresql_database(), batch_size=20)
    second = first.twin()
    second.start()
    await second.is_ready()

    async def roll(_: Random) -> None:
        for each in (first, second):
            assert await each.stop() == 0
            each.start()
            await each.is_ready()

    await trials.endure("rolling restart of two workers", roll, ledger, first, second, seconds=3, devices=200)
    assert {*first.deaths, *second.deaths} == {0}
