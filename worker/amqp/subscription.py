"""What one channel consumes: any number of queues, whose deliveries come to one batcher."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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
class ConsumedQueue:
    """A queue that is consumed, and its state; None before the first check."""

    queue: str
    """Its name."""
    tag: str
    """Of the consumer."""
    unacknowledged_by_tag: Callable[[str], int]
    waiting: int | None = None
    """Messages that are not delivered."""
    consumers: int | None = None
    """Consumers, of all workers."""

    @property
    def unacknowledged(self) -> int:
        """Messages that this worker has not acknowledged."""
        return self.unacknowledged_by_tag(self.tag)


@dataclass(slots=True, eq=False)
class Subscription:
    """The queues that a channel consumes, and how their deliveries become messages."""

    channel: Channel
    read: ReadDelivery
    delivered: Counter[str]
    """Deliveries that came into a batch, by queue."""
    batcher: Batcher = field(default_factory=Batcher)
    queues: dict[str, ConsumedQueue] = field(default_factory=dict)
    """By their names."""
    acknowledged: int = 0
    """Deliveries that were committed and acknowledged."""
    in_progress: Sequence[Delivery] = ()
    """Deliveries in the batch that is being processed."""
    _names: dict[bytes, str] = field(default_factory=dict)
    """The queue of each consumer, also of former ones."""

    @classmethod
    async def open(
        cls, connection: Connection, read: ReadDelivery, prefetch: int, delivered: Counter[str]
    ) -> Self:
        """A subscription to no queue yet; each of them delivers up to `prefetch` messages in advance."""
        channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        assert isinstance(channel, Channel)
        await channel.basic_qos(prefetch_count=prefetch)
        subscription = cls(channel, read, delivered)
        connection.frames.route_deliveries(channel.number, subscription.batcher.put)
        return subscription

    async def consume(self, queue: str) -> None:
        """Consume a queue."""
        tag = (await self.channel.basic_consume(queue, _bypassed)).consumer_tag
        assert tag is not None
        self._names[tag.encode()] = queue
        self.queues[queue] = ConsumedQueue(queue, tag, self._unacknowledged)

    async def cancel(self, queue: str) -> None:
        """Consume a queue no longer. What it has delivered is still to be processed and acknowledged."""
        await self.channel.basic_cancel(self.queues.pop(queue).tag)

    @property
    def cancelled(self) -> Sequence[str]:
        """The queues whose consumer the broker has cancelled."""
        return [each.queue for each in self.queues.values() if each.tag not in self.channel.consumers]

    @property
    def unacknowledged(self) -> int:
        """Deliveries that are not acknowledged."""
        return len(self.batcher) + len(self.in_progress)

    def _unacknowledged(self, tag: str) -> int:
        if len(self._names) == 1:
            return self.unacknowledged
        deliveries: Iterable[Delivery] = (*self.batcher, *self.in_progress)
        return sum(delivery.consumer == tag.encode() for delivery in deliveries)

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """Note a batch that is being processed."""
        self.in_progress = deliveries
        for consumer, number in Counter(delivery.consumer for delivery in deliveries).items():
            self.delivered[self._names[consumer]] += number

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
