"""Somebody stands in the door through which the transactions of batches pass; the others go on."""

import asyncio
from random import Random

from tests.faults.fleet import Fleet
from tests.faults.ledger import Comparison
from tests.faults.outages import session, waits_for_a_lock
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from worker.store.door import TIMEOUT, Door


async def test_the_door_is_held_for_good(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database)
    door = Door(str(worker.settings["topology_prefix"]))
    async with session(sturdy_database) as own:
        await door.begin(own.execute, "BEGIN;")

        async def nothing(_: Random) -> None:
            """The fault lasts."""

        result = await trials.endure("somebody stands in the door", nothing, ledger, worker)
        assert result.seconds[0] < TIMEOUT + 5
        assert not result.seconds[1:] or max(result.seconds[1:]) < TIMEOUT  # it is left aside for a while


async def test_transactions_pass_one_after_another(
    new_scene: NewScene, amqp_url: str, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database)
    door = Door(str(worker.settings["topology_prefix"]))
    fleet = Fleet(Random(2), devices=40)  # noqa: S311
    async with session(sturdy_database) as own:
        await door.begin(own.execute, "BEGIN;")
        await ledger.publish(fleet)
        while not await waits_for_a_lock(own):  # noqa: ASYNC110  # it is asked for
            await asyncio.sleep(0.05)
        await own.execute("ROLLBACK")
        await ledger.caught_up()
    assert await ledger.compare(fleet) == Comparison(0, 0, "")
    assert worker.metrics()["deviceops_door_wait_seconds_total"] > 0
