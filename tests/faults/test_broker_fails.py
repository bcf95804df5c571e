"""A broker that dies, stands still, or throws the worker out: the worker comes back, and nothing is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import aio_pika
import pytest

from tests.faults.fleet import Fleet
from tests.faults.locking import locked
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.faults.workers import Worker
from tests.support.databases import NewDatabase
from tests.support.services import PrivateRabbitMQ

HEARTBEAT = "?heartbeat=5"
"""What a broker that says nothing for so many seconds is noticed by, if nothing else notices it before."""


@pytest.fixture
def database_url(new_postgresql_database: NewDatabase) -> str:
    """The laws are tested on both databases; here it makes no difference."""
    return new_postgresql_database()


def lost_and_found(worker: Worker) -> int:
    """How often the log tells of a lost broker; one line each, and one of the next session."""
    changes = [event for event in worker.events if event in ("broker connection lost, reconnecting", "consuming")]
    assert changes == [
        "consuming",
        *["broker connection lost, reconnecting", "consuming"] * (len(changes) // 2),
    ], changes
    return len(changes) // 2


async def test_the_broker_is_killed_and_started_again(
    trials: Trials, new_scene: NewScene, broker: PrivateRabbitMQ, database_url: str
) -> None:
    worker, ledger = await new_scene(broker.url, database_url)
    await asyncio.sleep(2)  # see PrivateRabbitMQ.kill()

    async def kill(random: Random) -> None:
        await asyncio.to_thread(broker.kill)
        await worker.until(lambda: "refused" in worker.probe("readyz")[1], "not ready, with the reason in words")
        assert worker.probe("livez")[0] == 200
        await asyncio.sleep(random.uniform(0, 1))
        await asyncio.to_thread(broker.start)

    await trials.endure("broker killed and started again", kill, ledger, worker)
    assert lost_and_found(worker) == trials.tries
    assert len(worker.deaths) == 1


async def test_the_broker_is_restarted_in_order(
    trials: Trials, new_scene: NewScene, broker: PrivateRabbitMQ, database_url: str
) -> None:
    worker, ledger = await new_scene(broker.url, database_url)

    async def restart(_: Random) -> None:
        await asyncio.to_thread(broker.stop)
        await asyncio.to_thread(broker.start)

    await trials.endure("broker restarted in order", restart, ledger, worker)
    assert lost_and_found(worker) == trials.tries


async def test_the_broker_is_away_when_the_worker_starts(
    trials: Trials, new_scene: NewScene, broker: PrivateRabbitMQ, database_url: str
) -> None:
    worker, ledger = await new_scene(broker.url, database_url)

    async def start_before_the_broker(_: Random) -> None:
        await asyncio.to_thread(broker.stop)
        worker.kill()
        worker.start()
        await worker.until(lambda: "refused" in worker.probe("readyz")[1], "not ready, with the reason in words")
        assert worker.probe("livez")[0] == 200
        await asyncio.to_thread(broker.start)

    await trials.endure("broker away when the worker starts", start_before_the_broker, ledger, worker)


async def test_the_broker_stands_still(
    trials: Trials, new_scene: NewScene, broker: PrivateRabbitMQ, database_url: str
) -> None:
    worker, ledger = await new_scene(broker.url, database_url, amqp_url=broker.url + HEARTBEAT, stall_timeout=8)

    async def freeze(random: Random) -> None:
        with broker.frozen():
            await asyncio.sleep(random.uniform(0, 20))

    await trials.endure("broker frozen for up to 20 s", freeze, ledger, worker)
    assert worker.deaths == [0]


async def test_the_broker_closes_every_connection(
    trials: Trials, new_scene: NewScene, broker: PrivateRabbitMQ, database_url: str
) -> None:
    worker, ledger = await new_scene(broker.url, database_url, batch_size=20)

    async def close(random: Random) -> None:
        for _ in range(2):
            await asyncio.to_thread(broker.control, "close_all_connections", "a test")
            await asyncio.sleep(random.uniform(0, 0.5))
            await worker.is_ready()

    await trials.endure("connections closed by the broker, twice", close, ledger, worker)
    assert worker.deaths == [0]
    assert "CONNECTION_FORCED - a test" in worker.log


async def test_the_broker_closes_the_channel_of_a_worker_that_does_not_acknowledge(
    trials: Trials, new_scene: NewScene, broker: PrivateRabbitMQ, database_url: str
) -> None:
    """RabbitMQ's consumer_timeout, which operators may have set lower than our own time to hold messages."""
    worker, ledger = await new_scene(broker.url, database_url)
    said = "PRECONDITION_FAILED - delivery acknowledgement on channel"

    async def time_out(random: Random) -> None:
        before = worker.log.count(said)
        async with impatient(broker):
            worker.signal(signal.SIGKILL)  # a channel keeps the patience that it was opened with
            await worker.has_died()
            await worker.is_ready()  # a worker that cannot write takes no message in the first place
            async with locked(database_url):
                await ledger.publish(Fleet(random, devices=4))
                await worker.until(lambda: worker.log.count(said) > before, "thrown out")

    await trials.endure("channel closed by the broker", time_out, ledger, worker)


@asynccontextmanager
async def impatient(broker: PrivateRabbitMQ) -> AsyncIterator[None]:
    """RabbitMQ with a consumer_timeout of a second for the length of a block, and looking for it as often."""
    usual = {"consumer_timeout": 1_800_000, "channel_tick_interval": 60_000}
    for name in usual:
        await asyncio.to_thread(broker.control, "eval", f"application:set_env(rabbit, {name}, 1000).")
    try:
        yield
    finally:
        for name, value in usual.items():
            await asyncio.to_thread(broker.control, "eval", f"application:set_env(rabbit, {name}, {value}).")


async def test_the_queue_is_deleted_under_the_worker(
    trials: Trials, new_scene: NewScene, broker: PrivateRabbitMQ, database_url: str
) -> None:
    worker, ledger = await new_scene(broker.url, database_url)

    async def delete(_: Random) -> None:
        # What is in a queue goes with it: that is the fault of whoever deletes it, and nobody can mend it.
        async with ledger.pause(), await aio_pika.connect(broker.url) as connection:
            await (await connection.channel()).queue_delete(f"{worker.settings['topology_prefix']}.reports")

    await trials.endure("queue deleted under the worker", delete, ledger, worker)
    assert worker.deaths == [0]


@pytest.mark.parametrize(
    ("alarm", "end"),
    [
        (["set_vm_memory_high_watermark", "absolute", "1"], ["set_vm_memory_high_watermark", "0.4"]),
        (["set_disk_free_limit", "9000000000000"], ["set_disk_free_limit", "50000000"]),
    ],
    ids=["memory", "disk"],
)
async def test_an_alarm_of_the_broker_stops_publishers_and_no_worker(
    trials: Trials,
    new_scene: NewScene,
    broker: PrivateRabbitMQ,
    database_url: str,
    alarm: list[str],
    end: list[str],
) -> None:
    """Consuming and acknowledging go on, for the worker that is connected and for one that connects now."""
    worker, ledger = await new_scene(broker.url, database_url, batch_size=20)

    async def alarmed(_: Random) -> None:
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(0.2)  # something to consume gathers
        await asyncio.to_thread(broker.control, *alarm)
        try:
            worker.signal(signal.SIGCONT)
            await ledger.arrived()
            worker.signal(signal.SIGKILL)
            await worker.has_died()
            await worker.is_ready()
            await ledger.arrived()
        finally:
            await asyncio.to_thread(broker.control, *end)

    await trials.endure("alarm of the broker (memory, disk)", alarmed, ledger, worker, seconds=0.3)
