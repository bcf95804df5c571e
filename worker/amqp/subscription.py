"""A consumed queue: its channel, and the batcher to which its deliveries come."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from worker.amqp.batching import Batcher
from worker.amqp.connection import Connection
from worker.amqp.delivery import Delivery
from worker.model.messages import Message

ReadDelivery = Callable[[Delivery, datetime], Message]


@dataclass(slots=True, eq=False)
class Subscription:
    """One consumed queue, and how its deliveries become messages."""

    queue: str
    """Its name."""
    channel: Channel
    tag: str
    batcher: Batcher
    read: ReadDelivery
    turns: asyncio.Semaphore
    """For batches of several queues, to be processed a few at a time."""
    acknowledged: int = 0
    """Deliveries that were committed and acknowledged."""
    in_progress: int = 0
    """Deliveries in the batch that is being processed."""
    waiting: int | None = None
    """Undelivered messages; None before the first check."""
    consumers: int | None = None
    """Consumers, of all workers, this one included; None before the first check."""
    is_released: bool = field(default=False, init=False)
    """Whether it is consumed no longer; what was delivered is still to be processed."""
    _is_silent: bool = field(default=False, init=False)
    """Whether the broker has said so: nothing more will be delivered."""

    @classmethod
    async def open(
        cls, connection: Connection, queue: str, read: ReadDelivery, prefetch: int, turns: asyncio.Semaphore
    ) -> Self:
        """Consume a queue, with up to `prefetch` messages delivered in advance."""
        batcher = Batcher()
        channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        assert isinstance(channel, Channel)
        await channel.basic_qos(prefetch_count=prefetch)
        connection.frames.route_deliveries(channel.number, batcher.put)
        tag = (await channel.basic_consume(queue, _bypassed)).consumer_tag
        assert tag is not None
        return cls(queue, channel, tag, batcher, read, turns)

    @property
    def is_cancelled(self) -> bool:
        """Whether the broker has cancelled the consumer."""
        return not self.is_released and self.tag not in self.channel.consumers

    @property
    def is_done(self) -> bool:
        """Whether it is released, and everything that was delivered is settled."""
        return self._is_silent and not self.unacknowledged

    @property
    def unacknowledged(self) -> int:
        """Deliveries that are not acknowledged."""
        return len(self.batcher) + self.in_progress

    async def release(self) -> None:
        """Consume no more."""
        self.is_released = True
        await self.channel.basic_cancel(self.tag)
        self._is_silent = True
        self.batcher.wake()

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries."""
        *others, last = (delivery.tag for delivery in deliveries)
        # Batches are in the order of delivery, so the last tag covers all before it, except with poison
        # candidates.
        in_order = bool(others) and not self.batcher.has_poison_candidates
        if not in_order:
            for tag in others:
                await self.channel.basic_ack(tag, wait=False)
        await self.channel.basic_ack(last, multiple=in_order)


async def _bypassed(_: DeliveredMessage) -> None:
    """Receive deliveries that bypass the fast path: there are none."""
    raise AssertionError("a delivery that bypassed the batcher")
