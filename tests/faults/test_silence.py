"""Nothing is silence that waits in a queue, or that a worker holds."""

import asyncio
import signal
from collections import Counter
from datetime import datetime

import pytest
from aio_pika.abc import AbstractChannel
from pydantic import SecretStr
from sqlalchemy import make_url, select

from statemachine import State
from tests.faults.outages import entries, session
from tests.faults.scene import NewScene
from tests.faults.silence import NewSilence, Silence
from tests.faults.workers import Worker
from tests.support.brokering import send
from tests.support.proxy import proxy_to
from tests.support.services import PrivateRabbitMQ
from worker.amqp.connection import connected
from worker.amqp.partitions import Alone, Partitions
from worker.amqp.session import Session
from worker.amqp.topology import Topology
from worker.config.settings import Settings
from worker.dependency import Dependency
from worker.model.identity import device_operation_id
from worker.model.watermark import GONE_AFTER
from worker.store.tables import device_operations

HOUR = 3_600
LATER = 3
"""Seconds in which a worker that looks at what is due does so several times."""


@pytest.mark.parametrize("grace", [0, pytest.param(1, marks=pytest.mark.not_every_day)])
async def test_what_has_waited_for_an_hour_is_not_silence(
    new_scene: NewScene,
    new_silence: NewSilence,
    amqp_url: str,
    database_url: str,
    grace: float,
    is_large: bool,
) -> None:
    waiting, silent = (100_000, 1_000) if is_large else (4_000, 200)
    size = 500 if is_large else 10  # so that it takes some seconds to take up what waits
    worker, _ = await new_scene(amqp_url, database_url, timeout_grace=grace, batch_size=size)
    there = await new_silence(amqp_url, database_url, worker)
    await assert_that_what_waits_is_no_silence(there, [worker], waiting, silent)


@pytest.mark.each_private_broker(full=True)
async def test_what_has_waited_in_any_partition_is_not_silence(
    new_scene: NewScene,
    new_silence: NewSilence,
    broker: PrivateRabbitMQ,
    sturdy_database: str,
    is_large: bool,
) -> None:
    waiting, silent = (100_000, 1_000) if is_large else (4_000, 200)
    size = 500 if is_large else 10
    worker, _ = await new_scene(broker.url, sturdy_database, timeout_grace=0, batch_size=size, partitions=4)
    there = await new_silence(broker.url, sturdy_database, worker)
    await assert_that_what_waits_is_no_silence(there, [worker, worker.twin()], waiting, silent)


async def assert_that_what_waits_is_no_silence(
    there: Silence, workers: list[Worker], waiting: int, silent: int
) -> None:
    """An outage of all workers, of an hour: who had reported by its end is not timed out, who had not is."""
    speaking = await there.announce(waiting, timeouts={"total": HOUR - 60})
    quiet = await there.announce(silent, timeouts={"total": HOUR - 60})
    assert await workers[0].stop() == 0
    for operation, targets in speaking.items():
        await there.report(operation, targets, "SUCCESS")
    await there.pass_time(HOUR)
    for worker in workers:
        worker.start()
    for operation, targets in speaking.items():
        await there.has(operation, len(targets), State.SUCCESS)
        assert not await there.timed_out(operation)
    for operation, targets in quiet.items():
        await there.has(operation, len(targets), State.TIMEOUT)
        assert sorted(await there.timed_out(operation)) == sorted(targets)
    for operation in speaking:
        assert not await there.timed_out(operation)
    await there.is_counted()
    for worker in workers:
        assert await worker.stop() == 0


@pytest.mark.parametrize("partitions", [1, pytest.param(4, marks=pytest.mark.not_every_day)])
async def test_what_a_frozen_worker_holds_is_not_silence(
    new_scene: NewScene, new_silence: NewSilence, broker: PrivateRabbitMQ, sturdy_database: str, partitions: int
) -> None:
    settings = {"timeout_grace": 0, "partitions": partitions}
    worker, _ = await new_scene(broker.url, sturdy_database, **settings)
    there = await new_silence(broker.url, sturdy_database, worker)
    _, frozen = await worker.with_twins(1)
    await frozen.until(lambda: frozen.metrics().get("deviceops_queues_held"), "consuming its share")
    [(operation, devices)] = (await there.announce(400, timeouts={"total": 3})).items()
    speaking, quiet = devices[:300], devices[300:]
    frozen.signal(signal.SIGSTOP)
    await there.report(operation, speaking, "SUCCESS")
    await worker.still_waits(GONE_AFTER / 1_000 + LATER)
    held = 300 - await there.count(operation, State.SUCCESS)
    assert held > 0
    assert not set(await there.timed_out(operation)) & set(speaking)
    frozen.signal(signal.SIGCONT)
    await there.has(operation, 300, State.SUCCESS)
    await there.has(operation, 100, State.TIMEOUT)
    assert sorted(await there.timed_out(operation)) == sorted(quiet)
    await there.is_counted()


async def test_what_one_worker_held_and_another_one_holds_is_not_silence(
    new_scene: NewScene, new_silence: NewSilence, amqp_url: str, sturdy_database: str
) -> None:
    """Neither while a batch of the first takes long, nor when that is killed, and the next one takes as long."""
    worker, _ = await new_scene(amqp_url, sturdy_database, timeout_grace=0, database_timeout=60)
    there = await new_silence(amqp_url, sturdy_database, worker)
    [(operation, devices)] = (await there.announce(100, timeouts={"total": 3})).items()
    ids = {device_operation_id(operation, device): device for device in devices}
    async with session(sturdy_database) as other, other.transaction():
        # Batches lock in the order of the ids: those that follow are free to be timed out.
        await other.execute("SELECT FROM device_operations WHERE id = $1 FOR UPDATE", min(ids))
        await there.report(operation, devices, "SUCCESS")
        # So that the other one has never looked at the queue before the devices were over.
        await worker.until(lambda: worker.timeout_lag, "late with a timeout")
        _, twin = await worker.with_twins(1)
        await twin.still_waits(LATER)
        assert not await there.timed_out(operation)
        worker.signal(signal.SIGKILL)
        await worker.has_died()
        await worker.is_ready()
        await asyncio.gather(*(each.still_waits(GONE_AFTER / 1_000 + LATER) for each in (worker, twin)))
        assert not await there.timed_out(operation)
    await there.has(operation, 100, State.SUCCESS)
    assert not await there.timed_out(operation)


async def test_what_is_on_its_way_over_a_slow_link_is_not_silence(
    amqp_url: str, topology_prefix: str, channel: AbstractChannel
) -> None:
    """The broker's answer that nothing waits comes when what it has delivered before has come as well."""
    number, topology = 1_000, Topology(topology_prefix)
    exchange = await topology.declare(channel)
    url = make_url(amqp_url)
    async with proxy_to(url.host or "", url.port or 5672) as proxy:
        way = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        settings = Settings(amqp_url=SecretStr(way), topology_prefix=topology_prefix)
        broker, partitions = Dependency("broker", "", ""), Partitions(topology, Alone())
        session = Session(settings, process_nothing, asyncio.Event(), broker, partitions, Counter())
        async with connected(settings) as connection:
            await session.open(connection, topology)
            proxy.delay = 0.03
            await send(exchange, *(b"." * 20_000 for _ in range(number)))
            found = None
            while found is None or found.message_count:
                found = await session._inspect_after_deliveries(partitions.held[0])
            assert partitions.held[0].batcher.received == number
            proxy.delay = 0


async def process_nothing(_: object) -> None:
    """What is delivered stays where it is."""


async def test_nothing_is_timed_out_before_the_grace_after_an_outage_of_the_broker(
    new_scene: NewScene, new_silence: NewSilence, broker: PrivateRabbitMQ, sturdy_database: str
) -> None:
    grace = 5
    worker, _ = await new_scene(broker.url, sturdy_database, timeout_grace=grace)
    there = await new_silence(broker.url, sturdy_database, worker)
    await asyncio.sleep(2)  # see PrivateRabbitMQ.kill()
    [(operation, _)] = (await there.announce(100, timeouts={"total": 3})).items()
    await asyncio.to_thread(broker.kill)
    await worker.until(lambda: "refused" in worker.probe("readyz")[1], "not ready")
    await worker.until(lambda: worker.timeout_lag, "late with a timeout")
    await asyncio.to_thread(broker.start)
    await worker.is_ready()
    assert await there.count(operation, State.TIMEOUT) == 0
    await there.has(operation, 100, State.TIMEOUT)
    consuming = [line for line in entries(worker.log) if line["event"] == "consuming"][-1]["timestamp"]
    async with there.database.read() as connection:
        query = select(device_operations.c.updated_at).where(device_operations.c.operation_id == operation)
        first = min((await connection.execute(query)).scalars())
    waited = (first - datetime.fromisoformat(consuming)).total_seconds()
    assert grace - 0.2 < waited  # the line comes a moment after it consumes
