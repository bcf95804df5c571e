"""A worker that is killed loses nothing and doubles nothing, wherever in its work it was."""

import asyncio
import signal
from random import Random

import pytest

from tests.faults.sabotage import BEFORE_ACKNOWLEDGEMENT, BEFORE_COMMIT
from tests.faults.scene import NewScene
from tests.faults.trials import Trials


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
