"""Workers share partitions as they come, leave, die and stand still; nothing is lost, nothing doubled."""

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from random import Random

import pytest

from tests.faults.fleet import Fleet
from tests.faults.ledger import Comparison, Ledger
from tests.faults.outages import feeding, session, waits_for_a_lock
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.faults.workers import Worker
from tests.support.brokering import connect
from tests.support.services import PrivateRabbitMQ
from worker.amqp.partitions import QUIET
from worker.amqp.topology import Topology
from worker.store.batch_lock import BatchLock

pytestmark = pytest.mark.each_private_broker(full=True)

PARTITIONS = 8
AGAIN_WITHIN = 10
"""Seconds within which the workers that there are share all partitions, evenly."""


def held(workers: Sequence[Worker]) -> list[int]:
    """How many queues of reports each of them consumes, in ascending order."""
    return sorted(int(worker.metrics().get("deviceops_queues_held", 0)) for worker in workers)


async def share(workers: Sequence[Worker], queues: int = PARTITIONS) -> float:
    """Return once workers share the queues evenly: after how many seconds."""
    began = time.monotonic()
    number = len(workers)
    even = sorted(queues // number + (place < queues % number) for place in range(number))
    await workers[0].until(lambda: held(workers) == even, f"sharing with {number - 1} others: {held(workers)}")
    return time.monotonic() - began


def in_flight(worker: Worker) -> int:
    """How many messages it has and has not acknowledged."""
    lines = worker.probe("metrics")[1].splitlines()
    of_queues = [line for line in lines if line.startswith("deviceops_in_flight_messages{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in of_queues)


async def settled(worker: Worker, ledger: Ledger) -> None:
    """Return once no queue has a message: where a report comes to two, the database has it before that."""
    deadline = time.monotonic() + AGAIN_WITHIN
    while await ledger.messages_left() or await asyncio.to_thread(in_flight, worker):
        assert time.monotonic() < deadline, f"{await ledger.messages_left()} messages wait"
        await asyncio.sleep(0.1)


@pytest.fixture
async def three(
    new_scene: NewScene, broker: PrivateRabbitMQ, sturdy_database: str
) -> tuple[Sequence[Worker], Ledger]:
    """Workers that share the partitions, and what they get."""
    worker, ledger = await new_scene(broker.url, sturdy_database, partitions=PARTITIONS)
    workers = await worker.with_twins()
    await share(workers)
    return workers, ledger


@pytest.mark.alone  # its bounds of time are of a machine that does nothing else
async def test_a_worker_dies_and_comes_back(trials: Trials, three: tuple[Sequence[Worker], Ledger]) -> None:
    workers, ledger = three
    taken: list[float] = []

    async def kill(random: Random) -> None:
        dead = random.choice(workers[1:])
        dead.kill()
        taken.append(await share([worker for worker in workers if worker is not dead]))
        async with feeding(ledger, random):
            dead.start()
            taken.append(await share(workers))

    await trials.endure("worker with partitions killed", kill, ledger, workers[0])
    assert max(taken) < AGAIN_WITHIN, taken


async def test_a_worker_stands_still(trials: Trials, three: tuple[Sequence[Worker], Ledger]) -> None:
    workers, ledger = three
    taken: list[float] = []

    async def freeze(random: Random) -> None:
        still = random.choice(workers)
        still.signal(signal.SIGSTOP)
        others = [worker for worker in workers if worker is not still]
        taken.append(await share(others))
        still.signal(signal.SIGCONT)
        taken.append(await share(workers))

    await trials.endure("worker with partitions frozen", freeze, ledger, workers[0])
    assert max(taken) < AGAIN_WITHIN, taken


async def test_a_worker_that_is_stopped_leaves_its_share_at_once(three: tuple[Sequence[Worker], Ledger]) -> None:
    workers, _ = three
    assert await workers[2].stop() == 0
    assert await share(workers[:2]) < AGAIN_WITHIN / 2


async def test_the_number_of_partitions_changes(
    new_scene: NewScene, broker: PrivateRabbitMQ, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(broker.url, sturdy_database)
    random = Random(1)  # noqa: S311
    for partitions in (4, 8, 2, 1):
        async with feeding(ledger, random):
            assert await worker.stop() == 0
            worker.settings["partitions"] = partitions
            worker.start()
            await worker.is_ready()
            fleet = Fleet(random, devices=40)
            await ledger.publish(fleet, seconds=1)
        await ledger.caught_up()
        assert await ledger.compare(fleet) == Comparison(0, 0, "")
    await settled(worker, ledger)
    assert await worker.stop() == 0
    assert await ledger.messages_left() == 0


async def test_workers_of_different_numbers_run_side_by_side(
    new_scene: NewScene, broker: PrivateRabbitMQ, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(broker.url, sturdy_database)
    other = worker.twin()
    other.settings["partitions"] = 4
    random = Random(2)  # noqa: S311
    async with feeding(ledger, random):
        other.start()
        await share([worker, other], queues=5)
        other.kill()
        await share([worker], queues=5)  # though it declares one: else nobody would consume the others
    fleet = Fleet(random, devices=40)
    await ledger.publish(fleet)
    await ledger.caught_up()
    assert await ledger.compare(fleet) == Comparison(0, 0, "")
    await settled(worker, ledger)
    assert await worker.stop() == 0
    assert await ledger.messages_left() == 0


@pytest.fixture
def plain_broker() -> Iterator[PrivateRabbitMQ]:
    """A RabbitMQ that knows no exchange that hashes."""
    with PrivateRabbitMQ(partitions=False) as server:
        yield server


@pytest.mark.not_every_day
async def test_former_queues_are_removed_once_they_are_empty(
    new_scene: NewScene, broker: PrivateRabbitMQ, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(broker.url, sturdy_database, partitions=4)
    topology = Topology(str(worker.settings["topology_prefix"]))
    assert await worker.stop() == 0
    fleet = Fleet(Random(3), devices=40)  # noqa: S311
    await ledger.publish(fleet)
    worker.settings["partitions"] = 2
    worker.start()

    async def numbers() -> Sequence[int]:
        async with await connect(broker.url) as connection:
            return await topology.existing(connection)

    deadline = time.monotonic() + QUIET + 30
    while await numbers() != [1, 2]:
        assert time.monotonic() < deadline, await numbers()
        await asyncio.sleep(1)
    assert await ledger.compare(fleet) == Comparison(0, 0, "")
    assert '"level": "error"' not in worker.log


async def test_a_broker_without_the_plugin_has_one_queue(
    plain_broker: PrivateRabbitMQ, new_scene: NewScene, sturdy_database: str
) -> None:
    worker, ledger = await new_scene(plain_broker.url, sturdy_database, partitions=1)
    assert await worker.stop() == 0
    worker.settings["partitions"] = 4
    worker.start()
    await worker.is_ready()
    assert "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange" in worker.log
    fleet = Fleet(Random(4), devices=40)  # noqa: S311
    async with session(sturdy_database) as own:
        await BatchLock(str(worker.settings["topology_prefix"])).begin(own.execute, "BEGIN;")
        await ledger.publish(fleet)
        async with asyncio.timeout(AGAIN_WITHIN):
            while not await waits_for_a_lock(own):  # noqa: ASYNC110  # it is asked for
                await asyncio.sleep(0.05)
        await own.execute("ROLLBACK")
        await ledger.caught_up()
    assert await ledger.compare(fleet) == Comparison(0, 0, "")
    assert worker.metrics()["deviceops_batch_lock_wait_seconds_total"] > 0
    assert await worker.stop() == 0
