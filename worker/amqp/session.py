"""A session with RabbitMQ: one connection, from the declared topology to whatever ends it.

It subscribes to the reports and to what the broker itself gave up on, each with a channel and a buffer of its own.
Whatever ends a session takes all of them along, so a delivery tag can never meet another channel; what was not
acknowledged comes again and is a duplicate.
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
from worker.dependency import Condition
from worker.errors import DeviceopsError
from worker.model.messages import Message

MAX_PREFETCH = 2_000
"""Quorum queues take no more."""
ANSWER = 10
"""Seconds that the broker has to answer, or to take an acknowledgement, before it counts as lost, at most."""
LOOK = 10
"""Seconds between two looks at the queues, at most."""
CHECK = 1
"""Seconds between two looks whether the channel still consumes."""
CLOSING = 3
"""Seconds of the time to drain that are kept for closing connections."""

_log = structlog.get_logger()

Settle = Callable[[Sequence[Message]], Awaitable[object]]
Reading = Callable[[Delivery, datetime], Message]


class BrokerLost(Exception):
    """The session ended without our doing: connect again."""


class Stalled(DeviceopsError):
    """Nothing moves though it should, and nobody knows why: the process must end, so that a new one takes over."""


class Queue(Protocol):
    """What there is to know of a queue that is consumed; None before the first look at it."""

    @property
    def queue(self) -> str:
        """Its name."""

    @property
    def waiting(self) -> int | None:
        """Messages that are delivered to nobody yet."""

    @property
    def consumers(self) -> int | None:
        """Consumers, of all workers."""

    @property
    def in_hand(self) -> int:
        """Messages that are here and not acknowledged."""


@dataclass(slots=True)
class _Subscription:
    """One queue that is consumed, and how its deliveries are read."""

    queue: str
    channel: Channel
    tag: str
    buffer: Buffer
    read: Reading
    settled: int = 0
    """Deliveries that were settled and acknowledged."""
    at_work: int = 0
    """Deliveries in the batch that is being settled."""
    waiting: int | None = None
    """Messages that the broker had and had not delivered to anybody, when we looked last."""
    consumers: int | None = None
    """Consumers, ours among them, when we looked last."""

    @property
    def in_hand(self) -> int:
        """Deliveries that are here and not settled."""
        return len(self.buffer) + self.at_work

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the broker that these are settled."""
        *others, last = (delivery.tag for delivery in deliveries)
        # Deliveries are batched in their order, so the last tag stands for all before it; but for suspects.
        in_order = bool(others) and not self.buffer.has_suspects
        if not in_order:
            for tag in others:
                await self.channel.basic_ack(tag, wait=False)
        await self.channel.basic_ack(last, multiple=in_order)


class Session:
    """Consumes over one connection, until it is to stop, or is idle, or something is wrong."""

    def __init__(
        self,
        settings: Settings,
        settle: Settle,
        stop: asyncio.Event,
        broker: Condition,
        database: Condition | None = None,
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
        """Done when the session has to end, with the reason if that is not our own wish."""
        # A look at the queues and its answer together take half of the time after which a worker counts as stuck.
        self._answer = min(ANSWER, settings.stall_timeout / 4)
        self.unsettled: list[asyncio.Future[object]] = []
        """Batches whose messages went back, which are settled all the same; the caller is to wait for them."""
        self._last_settled = 0.0
        """When anything was settled last, by the loop's clock."""

    @property
    def has_settled(self) -> bool:
        """Whether anything was settled and acknowledged."""
        return any(subscription.settled for subscription in self._subscriptions)

    @property
    def queues(self) -> Sequence[Queue]:
        """How it stands with what is consumed."""
        return self._subscriptions

    async def open(self, connection: Connection) -> None:
        """Declare the topology and begin to consume. Raises BrokerLost, or DeviceopsError if it differs."""
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
        """Consume until `stop` is set, or until nothing came for `until_idle` seconds.

        Raises BrokerLost, or Stalled if nothing moves though it should.
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
        """Have every part of the session end, after the batch that it is in."""
        if not self._end.done():
            if reason is None:
                self._end.set_result(None)
            else:
                self._end.set_exception(reason)
            if isinstance(reason, BrokerLost):
                self._broker.fails(str(reason))
        for subscription in self._subscriptions:
            subscription.buffer.stir()

    def _note_closing(self, closing: asyncio.Future[object]) -> None:
        error = None if closing.cancelled() else closing.exception()
        if isinstance(error, asyncio.CancelledError):  # how the client ends when it misses the heartbeat
            reason = "nothing was heard from the broker, not even a heartbeat"
        else:
            reason = "no reason was given" if error is None else explain(error)
        self._finish(BrokerLost(f"the channel was closed: {reason}"))

    async def _guarded(self, part: Awaitable[None]) -> None:
        try:
            await part
        except Exception as error:  # noqa: BLE001  # whatever it is, it is raised again at the end of the session
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
                # A process that stood still has yet to read what came meanwhile: that comes before this answer.
                await self._messages_waiting()
                if self._idle_for() >= until_idle:
                    self._finish()

    def _idle_for(self) -> float:
        """Seconds in which no queue has had anything to settle."""
        if any(subscription.in_hand for subscription in self._subscriptions):
            return 0
        return asyncio.get_running_loop().time() - self._last_settled

    async def _process(self, subscription: _Subscription, deliveries: Sequence[Delivery]) -> None:
        """Settle a batch and acknowledge it, in this order; or let it go back, when it takes too long."""
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
                _log.warning("given back before the commit: the broker delivers them again", messages=messages)
                if not self._end.done():
                    raise BrokerLost(f"{messages} messages were held for {hold:g} s, so they went back")
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
        """Seconds that a batch still has when the session has to end."""
        if isinstance(self._end.exception(), Stalled):
            return 0
        if not self._stop.is_set():
            return self._settings.hold_timeout
        drain = self._settings.drain_timeout
        return drain - min(CLOSING, drain / 2)

    async def _watch(self) -> None:
        """See to it that the broker answers, that we are its consumers, and that what waits moves on."""
        loop = asyncio.get_running_loop()
        stall = self._settings.stall_timeout
        state: list[tuple[int, int]] = []
        changed_at = loop.time()
        while True:
            await asyncio.sleep(min(LOOK, stall / 4))
            waiting = await self._messages_waiting()
            before, state = state, [(s.buffer.received, s.settled) for s in self._subscriptions]
            in_hand = sum(subscription.in_hand for subscription in self._subscriptions)
            is_excused = self._database is not None and self._database.trouble is not None
            if state != before or is_excused or not (waiting or in_hand):
                changed_at = loop.time()
            elif loop.time() - changed_at >= stall:
                raise Stalled(
                    f"nothing has moved for {stall:g} s, with {waiting:,} messages in the queues and {in_hand:,} "
                    "in hand: leaving, so that a new worker can take over"
                )

    async def _messages_waiting(self) -> int:
        """Messages that the broker has and has not delivered. Raises BrokerLost if it does not count us in."""
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
    """Take what the client would deliver, if its wire left it any."""
    raise AssertionError("a delivery that went past the buffer")


@contextmanager
def losing_the_broker() -> Iterator[None]:
    """A block in which a failure of the broker, or of the connection to it, ends the session: as BrokerLost."""
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        if not is_of_broker(error):
            raise
        raise BrokerLost(explain(error)) from error
