"""A session with RabbitMQ: one connection, from the declaration of the topology to its end.

It consumes the reports and the abandoned messages, each with its own channel and batcher. A session ends as a
whole, so that a delivery tag is never used on another channel; unacknowledged messages are redelivered, and those
that were committed are duplicates.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from worker.amqp.batching import Buffer
from worker.amqp.connection import CONNECT_TIMEOUT, Connection, explain, is_of_broker
from worker.amqp.delivery import Delivery
from worker.amqp.reading import as_given_up, as_message
from worker.amqp.topology import Established, Topology
from worker.config.settings import Settings
from worker.dependency import Dependency
from worker.errors import DeviceopsError
from worker.model.messages import Message

MAX_PREFETCH = 2_000
"""The maximum for quorum queues."""
ANSWER = 10
"""Maximum seconds for an answer or an acknowledgement before the broker counts as lost."""
LOOK = 10
"""Maximum seconds between two checks of the queues."""
CHECK = 1
"""Seconds between two checks of the channel's consumer."""
CLOSING = 3
"""Seconds of the drain timeout that are reserved for closing connections."""

_log = structlog.get_logger()

Settle = Callable[[Sequence[Message]], Awaitable[object]]
Reading = Callable[[Delivery, datetime], Message]


class BrokerLost(Exception):
    """The session was ended by the broker or the network: reconnect."""


class Stalled(DeviceopsError):
    """Consumption stalls without a known reason: the process must end, so that the supervisor starts a new one."""


class Queue(Protocol):
    """The state of a consumed queue; None before the first check."""

    @property
    def queue(self) -> str:
        """Its name."""

    @property
    def waiting(self) -> int | None:
        """Messages that are not delivered."""

    @property
    def consumers(self) -> int | None:
        """Consumers, of all workers."""

    @property
    def in_hand(self) -> int:
        """Messages that this worker has not acknowledged."""


@dataclass(slots=True)
class _Subscription:
    """One consumed queue, and how its deliveries become messages."""

    queue: str
    channel: Channel
    tag: str
    buffer: Buffer
    read: Reading
    settled: int = 0
    """Deliveries that were committed and acknowledged."""
    at_work: int = 0
    """Deliveries in the batch that is being processed."""
    waiting: int | None = None
    """Undelivered messages at the last check."""
    consumers: int | None = None
    """Consumers, this one included, at the last check."""

    @property
    def in_hand(self) -> int:
        """Deliveries that are not acknowledged."""
        return len(self.buffer) + self.at_work

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries."""
        *others, last = (delivery.tag for delivery in deliveries)
        # Batches are in the order of delivery, so the last tag covers all before it, except with poison
        # candidates.
        in_order = bool(others) and not self.buffer.has_suspects
        if not in_order:
            for tag in others:
                await self.channel.basic_ack(tag, wait=False)
        await self.channel.basic_ack(last, multiple=in_order)


class Session:
    """Consumes over one connection, until it is stopped, idle or lost."""

    def __init__(
        self,
        settings: Settings,
        settle: Settle,
        stop: asyncio.Event,
        broker: Dependency,
        database: Dependency | None = None,
    ) -> None:
        self._settings = settings
        self._topology = Topology(settings.topology_prefix)
        self._settle = settle
        self._stop = stop
        self._broker = broker
        self._database = database
        self._subscriptions: list[_Subscription] = []
        self.found = Established()
        self._end: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        """Done when the session has to end, with an exception unless it was stopped."""
        # A check of the queues and its answer take half of the stall timeout.
        self._answer = min(ANSWER, settings.stall_timeout / 4)
        self.unsettled: list[asyncio.Future[object]] = []
        """Batches whose messages were returned while processing goes on; the caller has to wait for them."""
        self._last_settled = 0.0
        """When a batch was last acknowledged, by the loop's clock."""

    @property
    def has_settled(self) -> bool:
        """Whether any batch was acknowledged."""
        return any(subscription.settled for subscription in self._subscriptions)

    @property
    def queues(self) -> Sequence[Queue]:
        """The state of the consumed queues."""
        return self._subscriptions

    async def open(self, connection: Connection) -> None:
        """Declare the topology and start consuming. Raises BrokerLost, or DeviceopsError on other arguments."""
        topology = self._topology
        with losing_the_broker():
            async with asyncio.timeout(CONNECT_TIMEOUT):
                self.found = await topology.establish(connection)
                looking = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
                assert isinstance(looking, Channel)
                self._looking = looking
                self._subscriptions.append(await self._subscribe(connection, topology.reports, as_message))
                for queue in self.found.dead_letters:
                    self._subscriptions.append(await self._subscribe(connection, queue, as_given_up))

    async def run(self, until_idle: float | None) -> None:
        """Consume until `stop` is set, or until nothing has been delivered for `until_idle` seconds.

        Raises BrokerLost, or Stalled.
        """
        loop = asyncio.get_running_loop()
        self._last_settled = loop.time()
        stopping = asyncio.create_task(self._stop.wait())
        stopping.add_done_callback(lambda _: self._finish())
        watching = asyncio.create_task(self._guarded(self._watch()))
        try:
            await asyncio.gather(*(self._guarded(self._consume(s, until_idle)) for s in self._subscriptions))
        finally:
            stopping.cancel()
            watching.cancel()
        self._finish()
        self._end.result()
        with losing_the_broker():
            async with asyncio.timeout(CLOSING):
                for subscription in self._subscriptions:
                    await subscription.channel.basic_cancel(subscription.tag)

    def _finish(self, reason: Exception | None = None) -> None:
        """End every part of the session, after its current batch."""
        if not self._end.done():
            if reason is None:
                self._end.set_result(None)
            else:
                self._end.set_exception(reason)
            if isinstance(reason, BrokerLost):
                self._broker.mark_down(str(reason))
        for subscription in self._subscriptions:
            subscription.buffer.stir()

    def _note_closing(self, closing: asyncio.Future[object]) -> None:
        error = None if closing.cancelled() else closing.exception()
        if isinstance(error, asyncio.CancelledError):  # raised by the client without a heartbeat
            reason = "nothing was heard from the broker, not even a heartbeat"
        else:
            reason = "no reason was given" if error is None else explain(error)
        self._finish(BrokerLost(f"the channel was closed: {reason}"))

    async def _guarded(self, part: Awaitable[None]) -> None:
        try:
            await part
        except Exception as error:  # noqa: BLE001  # raised again at the end of the session
            self._finish(error)

    async def _subscribe(self, connection: Connection, queue: str, read: Reading) -> _Subscription:
        buffer = Buffer()
        own_channel = await connection.channel(publisher_confirms=False)
        channel = await own_channel.get_underlay_channel()
        assert isinstance(channel, Channel)
        await channel.basic_qos(prefetch_count=min(2 * self._settings.batch_size, MAX_PREFETCH))
        connection.wire.deliver(channel.number, buffer.put)
        tag = (await channel.basic_consume(queue, _never)).consumer_tag
        assert tag is not None
        channel.closing.add_done_callback(self._note_closing)
        return _Subscription(queue, channel, tag, buffer, read)

    async def _consume(self, subscription: _Subscription, until_idle: float | None) -> None:
        size, wait = self._settings.batch_size, self._settings.batch_wait / 1_000
        while not self._end.done():
            patience: float = CHECK
            if until_idle is not None:
                patience = min(CHECK, max(until_idle - self._idle_for(), 0))
            deliveries = await subscription.buffer.batch(size, wait, patience)
            if deliveries:
                await self._process(subscription, deliveries)
            elif subscription.tag not in subscription.channel.consumers:
                raise BrokerLost(f"the consumer of {subscription.queue} was cancelled; was the queue deleted?")
            elif until_idle is not None and self._idle_for() >= until_idle:
                # After a pause of the process, deliveries of that time are read before this answer.
                await self._messages_waiting()
                if self._idle_for() >= until_idle:
                    self._finish()

    def _idle_for(self) -> float:
        """Seconds since any queue had a message."""
        if any(subscription.in_hand for subscription in self._subscriptions):
            return 0
        return asyncio.get_running_loop().time() - self._last_settled

    async def _process(self, subscription: _Subscription, deliveries: Sequence[Delivery]) -> None:
        """Process a batch, then acknowledge it; return its messages to the broker if that takes too long."""
        now = datetime.now(UTC)
        subscription.at_work = len(deliveries)
        settling: asyncio.Future[object] = asyncio.ensure_future(
            self._settle([subscription.read(delivery, now) for delivery in deliveries])
        )
        try:
            hold = self._settings.hold_timeout
            await asyncio.wait([settling, self._end], return_when=asyncio.FIRST_COMPLETED, timeout=hold)
            if self._end.done() and not settling.done():
                await asyncio.wait({settling}, timeout=self._patience())
            if not settling.done():
                messages = len(deliveries)
                self.unsettled.append(settling)
                _log.warning(
                    "messages returned to the broker before the commit, to be redelivered", messages=messages
                )
                if not self._end.done():
                    raise BrokerLost(f"{messages} messages were held for {hold:g} s, so they were returned")
                return
            settling.result()
            with losing_the_broker():
                async with asyncio.timeout(self._answer):
                    await subscription.acknowledge(deliveries)
            subscription.settled += len(deliveries)
        finally:
            if settling not in self.unsettled:
                settling.cancel()
            subscription.at_work = 0
            self._last_settled = asyncio.get_running_loop().time()

    def _patience(self) -> float:
        """Seconds that a batch still has when the session ends."""
        if isinstance(self._end.exception(), Stalled):
            return 0
        if not self._stop.is_set():
            return self._settings.hold_timeout
        drain = self._settings.drain_timeout
        return drain - min(CLOSING, drain / 2)

    async def _watch(self) -> None:
        """Check that the broker answers, that this worker is a consumer, and that consumption makes progress."""
        loop = asyncio.get_running_loop()
        stall = self._settings.stall_timeout
        state: list[tuple[int, int]] = []
        changed_at = loop.time()
        while True:
            await asyncio.sleep(min(LOOK, stall / 4))
            waiting = await self._messages_waiting()
            before, state = state, [(s.buffer.received, s.settled) for s in self._subscriptions]
            in_hand = sum(subscription.in_hand for subscription in self._subscriptions)
            is_excused = self._database is not None and self._database.error is not None
            if state != before or is_excused or not (waiting or in_hand):
                changed_at = loop.time()
            elif loop.time() - changed_at >= stall:
                raise Stalled(
                    f"nothing has moved for {stall:g} s, with {waiting:,} messages in the queues and {in_hand:,} "
                    "in hand: leaving, so that a new worker can take over"
                )

    async def _messages_waiting(self) -> int:
        """The number of undelivered messages. Raises BrokerLost if the broker does not list this consumer."""
        waiting = 0
        for subscription in self._subscriptions:
            with losing_the_broker():
                async with asyncio.timeout(self._answer):
                    found = await self._looking.queue_declare(subscription.queue, passive=True)
            if not found.consumer_count:
                raise BrokerLost(f"the broker knows no consumer of {subscription.queue}")
            subscription.waiting, subscription.consumers = found.message_count, found.consumer_count
            waiting += found.message_count or 0
        return waiting


async def _never(_: DeliveredMessage) -> None:
    """Receive deliveries that bypass the fast path: there are none."""
    raise AssertionError("a delivery that bypassed the batcher")


@contextmanager
def losing_the_broker() -> Iterator[None]:
    """In the block, failures of the broker or the connection are raised as BrokerLost."""
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        if not is_of_broker(error):
            raise
        raise BrokerLost(explain(error)) from error
