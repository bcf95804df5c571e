"""The broker as the benchmarks use it: fill a queue fast, and see from outside how far its consumers are."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import aio_pika
from aiormq.channel import Channel
from pamqp import commands as spec

from worker.amqp.publisher import routing_key
from worker.amqp.topology import Topology
from worker.model.messages import Message

PATIENCE = 120
"""Seconds that the broker has to store what was published, and a consumer to connect."""
LOOK = 0.002
"""Seconds between two looks at a queue."""

Key = Callable[[Message], str]
"""The routing key of a message."""


class Broker:
    """A connection for publishing and looking. Messages are persistent, queues are the product's quorum queues."""

    def __init__(self, channel: Channel, connection: aio_pika.abc.AbstractConnection) -> None:
        self._channel = channel
        self._connection = connection

    @asynccontextmanager
    async def topology(self, prefix: str, partitions: int = 1) -> AsyncIterator[Topology]:
        """The exchange and the queues that the product declares, for the length of a block."""
        topology = Topology(prefix, partitions)
        async with self._connection.channel() as declaring:
            await topology.declare(declaring)
        try:
            yield topology
        finally:
            await topology.delete(self._connection)

    async def fill(self, topology: Topology, messages: Iterable[Message], key: Key = routing_key) -> None:
        """Publish messages, and return once the broker has all of them in the queue, where nobody consumes."""
        before, _ = await self._look(topology)
        count = 0
        for message in messages:
            await self.send(topology, message, key=key)
            count += 1
        deadline = time.monotonic() + PATIENCE
        while (await self._look(topology))[0] < before + count:
            assert time.monotonic() < deadline, "the broker does not store what was published"
            await asyncio.sleep(0.02)

    async def send(self, topology: Topology, message: Message, sent: float = 0, *, key: Key = routing_key) -> None:
        """Publish a message, without a confirmation; `sent` is when that was due, for who measures."""
        properties = spec.Basic.Properties(
            content_type="application/json",
            delivery_mode=2,
            message_id=message.message_id,
            message_type=message.type,
            timestamp=message.received_at,
            headers={"sent": str(sent)} if sent else None,
        )
        await self._channel.basic_publish(
            message.body, exchange=topology.exchange, routing_key=key(message), properties=properties
        )

    async def consumed_by(self, topology: Topology, consumers: int) -> float:
        """Return once so many consume: the moment at which they do, by the monotonic clock."""
        deadline = time.monotonic() + PATIENCE
        while (await self._look(topology))[1] < consumers:
            assert time.monotonic() < deadline, f"there are no {consumers} consumers of {topology.reports}"
            await asyncio.sleep(LOOK)
        return time.monotonic()

    async def _look(self, topology: Topology) -> tuple[int, int]:
        """How many messages are ready in the queues of reports, and how many consume them."""
        queues = map(topology.queue, topology.numbers)
        found = [await self._channel.queue_declare(queue, passive=True) for queue in queues]
        return sum(each.message_count or 0 for each in found), sum(each.consumer_count or 0 for each in found)


@asynccontextmanager
async def connected(amqp_url: str) -> AsyncIterator[Broker]:
    """A broker for the length of a block."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        assert isinstance(channel, Channel)
        yield Broker(channel, connection)
