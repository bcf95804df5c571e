"""A worker whose event loop hangs, or that hears of no deliveries, ends, and the next one does the work."""

import time
from random import Random

import yarl

from tests.faults.fleet import Fleet
from tests.faults.sabotage import BEFORE_ACKNOWLEDGEMENT, DEAF, FORGOTTEN
from tests.faults.scene import NewScene
from tests.faults.trials import Trials

STALL = 3
"""Seconds without progress after which a worker leaves."""
A_FEW = 5
"""Seconds more in which it must have left, on a machine that has other work too."""


async def test_for_longer_than_the_heartbeat(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str
) -> None:
    way = str(yarl.URL(amqp_url) % {"heartbeat": 1})
    worker, ledger = await new_scene(amqp_url, sturdy_database, batch_size=50, amqp_url=way)

    async def hang(random: Random) -> None:
        times = worker.log.count("reconnecting") + 1
        worker.sabotage(BEFORE_ACKNOWLEDGEMENT, "5")
        await ledger.publish(Fleet(random, devices=1))
        await worker.until(lambda: worker.log.count("reconnecting") == times, "cut off by the broker")
        await worker.is_ready()

    await trials.endure("event loop hangs beyond the heartbeat", hang, ledger, worker)
    assert worker.deaths == [0]


async def test_for_longer_than_anybody_waits(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database, batch_size=50, stall_timeout=STALL)

    async def hang(random: Random) -> None:
        before = len(worker.deaths)
        worker.sabotage(BEFORE_ACKNOWLEDGEMENT, "3600")
        await ledger.publish(Fleet(random, devices=1))
        hung = time.monotonic()
        await worker.has_died(before + 1)
        assert time.monotonic() - hung < STALL + A_FEW
        assert worker.deaths[before:] == [1]
        await worker.is_ready()

    await trials.endure("event loop hangs for good", hang, ledger, worker)
    assert worker.log.count("Timeout (0:00:03)!") == trials.tries
    assert worker.log.count("in strike") == trials.tries, "the place where it hangs"


async def test_deaf(trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database, batch_size=10, stall_timeout=STALL)

    async def deafen(random: Random) -> None:
        before = len(worker.deaths)
        (worker.folder / DEAF).touch()
        await ledger.publish(Fleet(random, devices=8))  # more than the prefetch, so that some stay in the queue
        deaf = time.monotonic()
        await worker.has_died(before + 1)
        (worker.folder / DEAF).unlink()
        assert time.monotonic() - deaf < STALL + A_FEW
        assert worker.deaths[before:] == [1]
        await worker.is_ready()

    await trials.endure("deliveries get lost within the client", deafen, ledger, worker)
    assert worker.log.count(f"no progress for {STALL} s, with") == trials.tries


async def test_the_broker_forgets_the_consumer(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database, batch_size=50, stall_timeout=STALL)

    async def forget(random: Random) -> None:
        times = worker.log.count("reconnecting") + 1
        (worker.folder / FORGOTTEN).touch()
        await ledger.publish(Fleet(random, devices=1))
        await worker.until(lambda: worker.log.count("reconnecting") == times, "aware of it")
        await worker.is_ready()

    await trials.endure("broker forgets the consumer", forget, ledger, worker)
    assert worker.log.count("the broker knows no consumer") == trials.tries
    assert worker.deaths == [0]
