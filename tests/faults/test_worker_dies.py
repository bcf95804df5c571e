"""A worker that is killed loses nothing and doubles nothing, wherever in its work it was."""

import asyncio
import signal
from random import Random

import aio_pika
import pytest

from tests.faults.backlog import announcement, assert_released, is_released, park
from tests.faults.sabotage import BEFORE_ACKNOWLEDGEMENT, BEFORE_COMMIT
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.support.brokering import send
from tests.support.databases import in_a_thread
from tests.support.sending import ANNOUNCEMENT

REPORTS = 8_000
"""Parked reports: several portions."""


async def test_killed_at_any_moment(trials: Trials, new_scene: NewScene, amqp_url: str, database_url: str) -> None:
    worker, ledger = await new_scene(amqp_url, database_url, batch_size=50)

    async def kill(random: Random) -> None:
        for _ in range(3):
            before = len(worker.deaths)
            worker.signal(signal.SIGKILL)
            await worker.has_died(before + 1)
            await worker.is_ready()
            await asyncio.sleep(random.uniform(0, 0.3))

    await trials.endure("worker killed at random, three times", kill, ledger, worker, seconds=2)


@pytest.mark.parametrize("place", [BEFORE_COMMIT, BEFORE_ACKNOWLEDGEMENT])
async def test_killed_at_the_worst_moment(
    trials: Trials, new_scene: NewScene, amqp_url: str, database_url: str, place: str
) -> None:
    worker, ledger = await new_scene(amqp_url, database_url, batch_size=50)

    async def kill(random: Random) -> None:
        for passes in random.sample(range(3), 3):
            before = len(worker.deaths)
            worker.sabotage(place, passes=passes)
            await worker.has_died(before + 1)

    name = f"worker killed {place.replace('-', ' ')}, three times"
    await trials.endure(name, kill, ledger, worker, seconds=4, devices=160)


async def test_killed_between_the_portions_of_what_waits(
    new_scene: NewScene, amqp_url: str, database_url: str, trials: Trials
) -> None:
    """What was done is not done again, and what was not is, whether the message comes again or nobody sends it."""
    worker, _ = await new_scene(amqp_url, database_url)
    random = Random(trials.seed)  # noqa: S311
    await park(database_url, REPORTS)
    async with await aio_pika.connect(amqp_url) as connection:
        exchange = await (await connection.channel()).get_exchange(str(worker.settings["topology_prefix"]))

        for passes in random.choices(range(1, 4), k=3):  # one is the probe's
            before = len(worker.deaths)
            worker.sabotage(BEFORE_COMMIT, passes=passes)
            if before == 0:
                await send(exchange, announcement(REPORTS), type=ANNOUNCEMENT, message_id="one")
            await worker.has_died(before + 1)

    await worker.until(lambda: in_a_thread(is_released(database_url, REPORTS)), "done")
    await assert_released(database_url, REPORTS)
