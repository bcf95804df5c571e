"""A broker's defaults, and policies for all queues: nothing leaves our queues but into the database."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from random import Random

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from pamqp.common import FieldTable

from tests.faults.outages import is_paused, said
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.support.brokering import PATIENCE, eventually, messages_in, report, send, until_logged
from tests.support.command import Deviceops
from tests.support.services import PrivatePostgreSQL, PrivateRabbitMQ
from worker.amqp.keepalive import DELAY
from worker.amqp.topology import Topology

pytestmark = pytest.mark.each_private_broker(full=True)

SENT = 20
MORE_THAN_A_DEFAULT = 25
"""Deliveries, where RabbitMQ 4 drops after 20."""


@contextmanager
def policy(broker: PrivateRabbitMQ, prefix: str, **definition: object) -> Iterator[None]:
    """A policy for all queues whose names begin so, for the length of a block."""
    named = {name.replace("_", "-"): value for name, value in definition.items()}
    broker.control("set_policy", "--apply-to", "queues", "blanket", f"^{prefix}", json.dumps(named))
    try:
        yield
    finally:
        broker.control("clear_policy", "blanket")


@pytest.fixture
def deviceops(deviceops_on_sqlite: Deviceops, broker: PrivateRabbitMQ) -> Deviceops:
    """The command, with names of its own on the broker."""
    prefix = f"blanket-{secrets.token_hex(4)}"
    # Milliseconds until the broker tries again to route what a queue holds, from when the queue is declared on.
    broker.control("eval", "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000).")
    deviceops = deviceops_on_sqlite.with_settings(amqp_url=broker.url, topology_prefix=prefix)
    deviceops.out("run", "--until-idle", "0.1", "--json")
    return deviceops


@pytest.fixture
async def connection(broker: PrivateRabbitMQ) -> AsyncIterator[AbstractConnection]:
    """A connection of the test's own."""
    async with await aio_pika.connect(broker.url) as connection:
        yield connection


@pytest.fixture
async def channel(connection: AbstractConnection) -> AbstractChannel:
    """A channel of the test's own."""
    return await connection.channel()


async def deliver(channel: AbstractChannel, name: str, times: int) -> None:
    """Have all that is in a queue delivered so often, and settled by nobody."""
    queue = await channel.get_queue(name)
    for _ in range(times):
        taken = []
        while (message := await queue.get(fail=False)) is not None:
            taken.append(message)
        for message in taken:
            await message.reject(requeue=True)


async def arrived(channel: AbstractChannel, queue: str) -> None:
    """Return once all that was sent is in a queue."""
    async with asyncio.timeout(PATIENCE):
        while await messages_in(channel, queue) < SENT:  # noqa: ASYNC110  # the broker sends no event
            await asyncio.sleep(0.05)


async def confirmed(exchange: AbstractExchange, number: int) -> int:
    """How many of so many reports the broker took."""
    taken = 0
    for _ in range(number):
        try:
            await send(exchange, report())
        except aio_pika.exceptions.DeliveryError:
            continue
        taken += 1
    return taken


def held(broker: PrivateRabbitMQ) -> str:
    """The names of queues, each with the number of messages that it has, those to be routed elsewhere too."""
    return broker.control("list_queues", "--no-table-headers", "--quiet", "name", "messages")


def collected(deviceops: Deviceops) -> tuple[int, int]:
    """How many reports a worker applies, and how many dead letters it keeps, until nothing more comes."""
    summary = deviceops.document("run", "--until-idle", "1")
    return summary["applied"], sum(summary["dead_lettered"].values())


async def test_dead_letters_that_are_delivered_again_and_again_stay(
    deviceops: Deviceops, channel: AbstractChannel
) -> None:
    topology = Topology(deviceops.settings["topology_prefix"])
    await send(await channel.get_exchange(topology.dead_letters), *(report() for _ in range(SENT)))
    await deliver(channel, topology.dead_letters, MORE_THAN_A_DEFAULT)

    assert await asyncio.to_thread(collected, deviceops) == (0, SENT)


@pytest.mark.parametrize("key", ["max_length", "max_length_bytes"])
async def test_beyond_a_length_reports_are_refused_and_none_that_was_confirmed_is_dropped(
    key: str, deviceops: Deviceops, broker: PrivateRabbitMQ, channel: AbstractChannel
) -> None:
    topology = Topology(deviceops.settings["topology_prefix"])
    with policy(broker, topology.prefix, **{key: 10}):
        await asyncio.sleep(1)  # a policy takes a moment
        reports = await confirmed(await channel.get_exchange(topology.exchange), 3 * SENT)
        letters = await confirmed(await channel.get_exchange(topology.dead_letters), 3 * SENT)

        assert (0 < reports < 3 * SENT, 0 < letters < 3 * SENT) == (True, True)
        assert await asyncio.to_thread(collected, deviceops) == (reports, letters)


@pytest.mark.parametrize(("key", "value"), [("message_ttl", 500), ("delivery_limit", 5)])
async def test_what_a_policy_takes_from_both_queues_is_held_and_can_be_had_again(
    key: str,
    value: int,
    deviceops: Deviceops,
    broker: PrivateRabbitMQ,
    connection: AbstractConnection,
    channel: AbstractChannel,
) -> None:
    topology = Topology(deviceops.settings["topology_prefix"])
    with policy(broker, topology.prefix, **{key: value}):
        await asyncio.sleep(1)
        await send(await channel.get_exchange(topology.exchange), *(report() for _ in range(SENT)))
        if key == "delivery_limit":
            await deliver(channel, topology.reports, value + 1)
            await arrived(channel, topology.dead_letters)
            await deliver(channel, topology.dead_letters, value + 1)
        await asyncio.to_thread(eventually, lambda: f"{topology.dead_letters}\t{SENT}" in held(broker))
        async with asyncio.timeout(PATIENCE):
            while any([await messages_in(channel, name) for name in (topology.reports, topology.dead_letters)]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert f"{topology.dead_letters}\t{SENT}" in held(broker), "though nobody can have them delivered"

    other = Topology(f"{topology.prefix}.rescue")
    rescue = deviceops.with_settings(topology_prefix=other.prefix)
    await asyncio.to_thread(rescue.out, "run", "--until-idle", "0.1", "--json")
    await (await channel.get_queue(other.dead_letters)).bind(topology.dead_letters, "#")
    assert await asyncio.to_thread(rescue.document, "run", "--until-idle", "8")
    letters = await asyncio.to_thread(deviceops.document, "dead-letters", "list")
    assert [letter["reason"] for letter in letters] == ["undeliverable"] * SENT
    await other.delete(connection)


async def test_queues_that_would_expire_are_kept_in_use_while_the_database_is_away(
    trials: Trials,
    new_scene: NewScene,
    broker: PrivateRabbitMQ,
    fragile_database: str,
    postgresql: PrivatePostgreSQL,
) -> None:
    worker, ledger = await new_scene(broker.url, fragile_database, hold_timeout=2)
    expires = DELAY + 5

    async def be_away(random: Random) -> None:
        with policy(broker, "fault-", expires=1_000 * expires):
            await asyncio.to_thread(postgresql.stop)
            await is_paused(worker, ledger, random)
            await worker.until(lambda: said(worker.log, "broker connection lost, reconnecting"), "giving back")
            await asyncio.sleep(expires + 3)
            await asyncio.to_thread(postgresql.start)
            await worker.is_ready()

    await trials.endure("queues expire unused while PostgreSQL is away", be_away, ledger, worker)
    assert not said(worker.log, "queue or exchange was deleted and is declared again, its messages are lost")


async def test_a_queue_that_somebody_deleted_is_a_warning_and_a_metric(
    new_scene: NewScene, broker: PrivateRabbitMQ, sturdy_database: str
) -> None:
    worker, _ = await new_scene(broker.url, sturdy_database)
    topology = Topology(str(worker.settings["topology_prefix"]))
    assert worker.metrics()["deviceops_topology_remade_total"] == 0
    async with await aio_pika.connect(broker.url) as connection:
        await (await connection.channel()).queue_delete(topology.reports)

    def told() -> list[dict[str, object]]:
        return said(worker.log, "queue or exchange was deleted and is declared again, its messages are lost")

    [line] = await asyncio.to_thread(eventually, told)
    assert line["names"] == [f"queue {topology.reports}"]
    assert worker.metrics()["deviceops_topology_remade_total"] == 1


OLD: FieldTable = {"x-queue-type": "quorum"}
"""What version 0.1 declared the queue of dead letters with."""


async def declare_as_of_old(channel: AbstractChannel, topology: Topology) -> None:
    """What a worker of version 0.1 does when it connects."""
    exchange = await channel.declare_exchange(topology.dead_letters, aio_pika.ExchangeType.TOPIC, durable=True)
    await (await channel.declare_queue(topology.dead_letters, durable=True, arguments=OLD)).bind(exchange, "#")


async def test_a_queue_of_an_older_version_is_replaced_without_loss_whenever_a_worker_dies(
    deviceops: Deviceops, connection: AbstractConnection, channel: AbstractChannel
) -> None:
    topology = Topology(deviceops.settings["topology_prefix"])
    await topology.delete(connection)
    await declare_as_of_old(channel, topology)
    dead = await channel.get_exchange(topology.dead_letters)
    moments = Random(3)  # noqa: S311
    sent = 0
    for life in range(4):
        await send(dead, *(report() for _ in range(SENT)))
        sent += SENT
        with deviceops.running("run") as worker:
            if life:  # the first one may end before it has done anything
                await asyncio.to_thread(until_logged, worker, "consuming")
            await asyncio.sleep(moments.uniform(0, 0.3))
        await declare_as_of_old(channel, topology)  # a worker of the older version connects
    await asyncio.to_thread(deviceops.out, "run", "--until-idle", "1")

    letters = await asyncio.to_thread(deviceops.document, "dead-letters", "list")
    assert len(letters) == sent
    assert [await messages_in(channel, name) for name in (topology.dead_letters, topology.successor)] == [0, 0]
    await send(dead, *(report() for _ in range(SENT)))
    await arrived(channel, topology.successor)
    assert await messages_in(channel, topology.dead_letters) == 0
    await deliver(channel, topology.successor, MORE_THAN_A_DEFAULT)
    assert await asyncio.to_thread(collected, deviceops) == (0, SENT)
    assert "ready" in await asyncio.to_thread(deviceops.out, "check")

    await channel.queue_delete(topology.dead_letters)  # as an operator may, once it is empty
    await send(dead, *(report() for _ in range(SENT)))
    assert await asyncio.to_thread(collected, deviceops) == (0, SENT)
    await send(dead, *(report() for _ in range(SENT)))
    await arrived(channel, topology.dead_letters)
    assert await messages_in(channel, topology.successor) == 0
