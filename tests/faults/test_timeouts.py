"""Silence is acted upon once, and nothing is silence that waits in a queue, or that a worker holds."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from random import Random
from uuid import uuid4

import pytest
from aio_pika.abc import AbstractChannel
from pydantic import SecretStr
from sqlalchemy import delete, make_url, select

from statemachine import State
from tests.faults.outages import entries, is_paused, session
from tests.faults.scene import NewScene
from tests.faults.silence import Silence, silence
from tests.faults.trials import Trials
from tests.faults.workers import Worker, killed
from tests.support.brokering import send
from tests.support.proxy import proxy_to
from tests.support.sending import ANNOUNCEMENT, announcement_body, message, report_body
from tests.support.services import PrivatePostgreSQL, PrivateRabbitMQ
from worker.amqp.connection import connected
from worker.amqp.partitions import Alone, Partitions
from worker.amqp.session import Session
from worker.amqp.topology import Topology
from worker.config.settings import Settings
from worker.dependency import Dependency
from worker.model.identity import device_operation_id
from worker.model.messages import Message
from worker.model.outcomes import Tally
from worker.model.parsing import parse
from worker.model.watermark import GONE_AFTER
from worker.processing import transaction
from worker.processing.decider import Decider
from worker.processing.decisions import Decisions
from worker.processing.expiry import Expirer, all_of_them, time_out
from worker.processing.splitting import WriteTransactions, process_items
from worker.store.database import Database
from worker.store.due import outlook
from worker.store.tables import device_operations, operation_tasks

HOUR = 3_600
LATER = 3
"""Seconds in which a worker that looks at what is due does so several times."""

NewSilence = Callable[[str, str, Worker], Awaitable[Silence]]


@pytest.fixture
async def new_silence() -> AsyncIterator[NewSilence]:
    async with AsyncExitStack() as stack:

        async def make(amqp_url: str, database_url: str, worker: Worker) -> Silence:
            return await stack.enter_async_context(silence(amqp_url, database_url, worker))

        yield make


def is_large(request: pytest.FixtureRequest) -> bool:
    """Whether this run has full sizes."""
    return any(request.config.getoption(name) for name in ("--full", "--long"))


async def test_three_workers_killed_while_many_fall_due(
    trials: Trials,
    new_scene: NewScene,
    new_silence: NewSilence,
    amqp_url: str,
    database_url: str,
    request: pytest.FixtureRequest,
) -> None:
    devices = 20_000 if is_large(request) else 2_000
    worker, ledger = await new_scene(amqp_url, database_url, timeout_grace=0)
    workers = await worker.with_twins()
    there = await new_silence(amqp_url, database_url, worker)

    async def fall_silent(random: Random) -> None:
        operations = await there.announce(devices, timeouts={"total": 0.5})
        await killed(workers, random, 2)  # while nothing counts as processed that dead workers may have held
        await asyncio.sleep(GONE_AFTER / 1_000 - 1)
        await killed(workers, random, 4)
        for operation, targets in operations.items():
            await there.has(operation, len(targets), State.TIMEOUT)
            acted = [id_ for id_, _ in await there.acted(operation)]
            assert sorted(acted) == sorted(device_operation_id(operation, each) for each in targets)
        await there.is_counted()

    name = f"three workers killed while {devices:,} device operations fall due"
    await trials.endure(name, fall_silent, ledger, *workers)


@pytest.mark.parametrize("grace", [0, pytest.param(1, marks=pytest.mark.not_every_day)])
async def test_what_has_waited_for_an_hour_is_not_silence(
    new_scene: NewScene,
    new_silence: NewSilence,
    amqp_url: str,
    database_url: str,
    grace: float,
    request: pytest.FixtureRequest,
) -> None:
    waiting, silent = (100_000, 1_000) if is_large(request) else (4_000, 200)
    size = 500 if is_large(request) else 10  # so that it takes some seconds to take up what waits
    worker, _ = await new_scene(amqp_url, database_url, timeout_grace=grace, batch_size=size)
    there = await new_silence(amqp_url, database_url, worker)
    await assert_that_what_waits_is_no_silence(there, [worker], waiting, silent)


@pytest.mark.each_private_broker(full=True)
async def test_what_has_waited_in_any_partition_is_not_silence(
    new_scene: NewScene,
    new_silence: NewSilence,
    broker: PrivateRabbitMQ,
    sturdy_database: str,
    request: pytest.FixtureRequest,
) -> None:
    waiting, silent = (100_000, 1_000) if is_large(request) else (4_000, 200)
    size = 500 if is_large(request) else 10
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


async def test_a_threshold_is_crossed_under_kills_and_repeated_deliveries(
    trials: Trials,
    new_scene: NewScene,
    new_silence: NewSilence,
    amqp_url: str,
    database_url: str,
    request: pytest.FixtureRequest,
) -> None:
    """It trips once, and everything that has not failed becomes CANCELLED, whichever workers are killed."""
    devices = 20_000 if is_large(request) else 4_000
    worker, ledger = await new_scene(amqp_url, database_url, timeout_grace=0, batch_size=20)
    workers = await worker.with_twins()
    there = await new_silence(amqp_url, database_url, worker)

    async def fail(random: Random) -> None:
        operation, targets = there.new_id(), [there.new_id() for _ in range(devices)]
        abort = {"failed_percent": 50, "min_settled": 100, "action": "cancel"}
        await there.announce_again(operation, targets, abort=abort)
        await there.has(operation, devices)
        failing = random.sample(targets, 300)
        bodies = [report_body(operation, device, "FAILURE", report_id=str(device)) for device in failing] * 3
        random.shuffle(bodies)
        numbers = set()
        killing = asyncio.create_task(killed(workers, random, 3))
        await there.publish(bodies)
        while not killing.done() or await there.count(operation, State.FAILURE, State.CANCELLED) != devices:
            numbers.add(await there.tripped(operation))
            await asyncio.sleep(0.05)
        await there.announce(1)  # which comes last
        numbers.add(await there.tripped(operation))
        [(numbers_then, reason)] = [each for each in numbers if each[0] is not None]
        assert numbers_then is not None
        assert json.loads(numbers_then)["settled"] >= 100
        assert reason is not None
        assert reason.startswith("aborted: ")
        cancelled = await there.acted(operation)
        assert len({report_id for _, report_id in cancelled}) == 1
        assert (
            len(cancelled) == len({id_ for id_, _ in cancelled}) == await there.count(operation, State.CANCELLED)
        )
        assert await there.count(operation, State.FAILURE) + len(cancelled) == devices
        await there.is_counted()

    await trials.endure("three workers killed while a threshold is crossed", fail, ledger, *workers)


async def test_timeouts_go_on_after_an_outage_of_the_database(
    trials: Trials,
    new_scene: NewScene,
    new_silence: NewSilence,
    amqp_url: str,
    fragile_database: str,
    postgresql: PrivatePostgreSQL,
) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, timeout_grace=1)
    there = await new_silence(amqp_url, fragile_database, worker)

    async def restart(random: Random) -> None:
        [(operation, devices)] = (await there.announce(500, timeouts={"total": 2})).items()
        await asyncio.to_thread(postgresql.stop)
        await is_paused(worker, ledger, random)
        await asyncio.sleep(random.uniform(0, 3))
        await asyncio.to_thread(postgresql.start)
        await worker.is_ready()
        await there.has(operation, 500, State.TIMEOUT)
        assert sorted(await there.timed_out(operation)) == sorted(devices)
        await there.is_counted()

    await trials.endure("PostgreSQL restarted while device operations fall due", restart, ledger, worker)


async def test_other_timeouts_that_are_announced_hold_for_all_that_is_not_settled(
    new_scene: NewScene, new_silence: NewSilence, amqp_url: str, database_url: str
) -> None:
    worker, _ = await new_scene(amqp_url, database_url, timeout_grace=0)
    there = await new_silence(amqp_url, database_url, worker)
    [(operation, devices)] = (await there.announce(300, timeouts={"total": HOUR})).items()
    await there.report(operation, devices[:100], "SUCCESS")
    await there.has(operation, 100, State.SUCCESS)
    await there.announce_again(operation, timeouts={"total": 1})
    await there.has(operation, 200, State.TIMEOUT)
    assert sorted(await there.timed_out(operation)) == sorted(devices[100:])


async def take(database: Database, sent: Message) -> None:
    """Process a message."""
    await process_items(WriteTransactions(database), parse(sent))


async def test_a_device_operation_that_is_over_no_longer_is_not_timed_out(database: Database) -> None:
    """An announcement has put it off, which nothing is armed with as yet; nor will be, without the task."""
    operation, devices = uuid4(), [uuid4() for _ in range(3)]
    await take(
        database, message(announcement_body(operation, devices, timeouts={"total": 0.001}), ANNOUNCEMENT, "1")
    )
    await asyncio.sleep(0.1)
    await take(database, message(announcement_body(operation, timeouts={"total": HOUR}), ANNOUNCEMENT, "2"))
    async with database.read() as connection:
        clock = (await outlook(connection)).clock
    assert await time_out(database, clock) is None  # it waits for the task
    async with database.write() as connection:
        await connection.execute(delete(operation_tasks))
    tally = await time_out(database, clock)
    assert tally is not None
    assert not tally.timeouts
    assert await time_out(database, clock) is None  # their rows have the later moment
    async with database.read() as connection:
        first = (await outlook(connection)).first
    assert first is not None
    assert clock + 1_000 * (HOUR - 60) < first


async def test_a_registration_and_an_announcement_of_timeouts_at_the_same_time(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The announcement does not see the device, and the registration has read that there are no timeouts."""
    database = postgresql_database
    operation, device = uuid4(), uuid4()
    await take(database, message(announcement_body(operation, [uuid4()]), ANNOUNCEMENT, "1"))
    announced = asyncio.Event()
    decide, has_loaded = transaction.decide, asyncio.Event()

    async def decide_late(items: object, decider: Decider) -> Decisions:
        monkeypatch.setattr(transaction, "decide", decide)
        has_loaded.set()
        await announced.wait()
        return await decide(items, decider)  # type: ignore[arg-type]

    monkeypatch.setattr(transaction, "decide", decide_late)
    registering = asyncio.create_task(take(database, message(report_body(operation, device, "CREATED"))))
    await has_loaded.wait()
    await take(database, message(announcement_body(operation, timeouts={"total": 0.001}), ANNOUNCEMENT, "2"))
    tally = Tally()
    expirer = Expirer(database, all_of_them, tally.add)
    await expirer.act()
    announced.set()
    await registering
    await asyncio.sleep(0.1)
    await expirer.act()
    assert tally.timeouts.total() == 2


async def test_timeouts_do_not_wait_for_tasks(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as to arm an operation anew that has a million devices."""
    database = postgresql_database
    await take(
        database, message(announcement_body(uuid4(), [uuid4()], timeouts={"total": 0.5}), ANNOUNCEMENT, "1")
    )
    large = uuid4()
    await take(database, message(announcement_body(large, [uuid4()], timeouts={"total": HOUR}), ANNOUNCEMENT, "2"))
    await take(database, message(announcement_body(large, timeouts={"total": 2 * HOUR}), ANNOUNCEMENT, "3"))
    monkeypatch.setattr(Expirer, "_arm", lambda *_: asyncio.sleep(60))
    tally, stop = Tally(), asyncio.Event()
    running = asyncio.create_task(Expirer(database, all_of_them, tally.add).run(stop))
    try:
        async with asyncio.timeout(15):
            while tally.timeouts.total() == 0:  # noqa: ASYNC110  # no event comes
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.wait([running])
