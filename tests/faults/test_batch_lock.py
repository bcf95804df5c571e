"""The lock of batches: a session that never releases it blocks workers for seconds only."""

import asyncio
from random import Random

from tests.faults.fleet import Fleet
from tests.faults.ledger import Comparison
from tests.faults.outages import session, waits_for_a_lock
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from worker.store.batch_lock import TIMEOUT, BatchLock


async def test_a_lock_that_is_never_released_blocks_for_seconds_only(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database)
    batch_lock = BatchLock(str(worker.settings["topology_prefix"]))
    async with session(sturdy_database) as own:
        await batch_lock.begin(own.execute, "BEGIN;")

        async def nothing(_: Random) -> None:
            """The fault lasts."""

        result = await trials.endure("lock of batches never released", nothing, ledger, worker)
        assert result.seconds[0] < TIMEOUT + 5
        assert not result.seconds[1:] or max(result.seconds[1:]) < TIMEOUT  # not acquired for a while


async def test_a_batch_waits_until_the_lock_is_released(
    new_scene: NewScene, amqp_url: str, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database)
    batch_lock = BatchLock(str(worker.settings["topology_prefix"]))
    fleet = Fleet(Random(2), devices=40)  # noqa: S311
    async with session(sturdy_database) as own:
        await batch_lock.begin(own.execute, "BEGIN;")
        await ledger.publish(fleet)
        while not await waits_for_a_lock(own):  # noqa: ASYNC110  # it is asked for
            await asyncio.sleep(0.05)
        await own.execute("ROLLBACK")
        await ledger.caught_up()
    assert await ledger.compare(fleet) == Comparison(0, 0, "")
    assert worker.metrics()["deviceops_batch_lock_wait_seconds_total"] > 0
