"""Consuming from RabbitMQ: one batch, one transaction, and the acknowledgement after the commit.

A session is one connection with two subscriptions, to the reports and to what the broker itself gave up on, each
with a channel and a buffer of its own. Whatever ends a session takes all of them along, so a delivery tag can
never meet another channel; what was not acknowledged comes again and is a duplicate.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aio_pika
import structlog
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from tenacity import AsyncRetrying, retry_if_exception, stop_when_event_set, wait_random_exponential

from worker.intake.buffer import Buffer
from worker.intake.connection import BROKER_ERRORS, BrokerUnavailable, connected, explain
from worker.intake.deliveries import as_given_up, as_message
from worker.intake.topology import Topology
from worker.messages import Message
from worker.settings import Settings, without_password

MAX_PREFETCH = 2_000
"""Quorum queues take no more."""
DRAIN = 25
"""Seconds that a batch has to commit after a stop was asked for."""
CHECK = 1
"""Seconds between two looks whether the channel still consumes."""

_log = structlog.get_logger()

Settle = Callable[[Sequence[Message]], Awaitable[object]]


class BrokerLost(Exception):
    """The session ended without our doing: connect again."""


Reading = Callable[[DeliveredMessage, datetime], Message]


@dataclass(frozen=True, slots=True)
class _Subscription:
    """One queue that is consumed, and how its deliveries are read."""

    queue: str
    channel: Channel
    tag: str
    buffer: Buffer
    read: Reading

    def stir(self, _: object) -> None:
        """Have whoever waits for a batch look whether it still should."""
        self.buffer.stir()


class Consumer:
    """Consumes batches until it is stopped, or idle, and connects again when the broker was away."""

    def __init__(self, settings: Settings, settle: Settle, stop: asyncio.Event) -> None:
        self._settings = settings
        self._topology = Topology(settings.topology_prefix)
        self._settle = settle
        self._stop = stop
        self._was_connected = False
        self._worked = False
        """Whether the present session has settled anything."""
        self._last_delivery = 0.0
        """When the present session last settled anything, by the loop's clock."""

    async def run(self, until_idle: float | None = None) -> None:
        """Consume until `stop` is set, or until nothing came for `until_idle` seconds.

        Raises DeviceopsError if the first connection fails or the topology differs from ours.
        """
        reconnecting = AsyncRetrying(
            retry=retry_if_exception(self._is_worth_another_try),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_when_event_set(self._stop),  # type: ignore[arg-type]  # it only asks is_set()
            sleep=self._pause,
            retry_error_callback=lambda _: None,
        )
        async for attempt in reconnecting:
            with attempt:
                self._worked = False
                try:
                    await self._session(until_idle)
                except BrokerLost as lost:
                    _log.warning("broker lost, connecting again", error=str(lost))
                    if self._worked:  # a new trouble: its pauses begin short again
                        attempt.retry_state.attempt_number = 1
                    raise

    def _is_worth_another_try(self, error: BaseException) -> bool:
        return isinstance(error, BrokerLost) or (isinstance(error, BrokerUnavailable) and self._was_connected)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _session(self, until_idle: float | None) -> None:
        async with connected(self._settings) as connection:
            with _losing_the_broker():
                topology = self._topology
                await topology.declare(await connection.channel(publisher_confirms=False))
                subscriptions = [
                    await self._subscribe(connection, topology.reports, as_message),
                    await self._subscribe(connection, topology.dead_letters, as_given_up),
                ]
            self._was_connected = True
            self._last_delivery = asyncio.get_running_loop().time()
            _log.info("consuming", queue=topology.reports, broker=without_password(self._settings.amqp_url))
            stopping = asyncio.create_task(self._stop.wait())
            for subscription in subscriptions:
                stopping.add_done_callback(subscription.stir)
            try:
                await self._consume_all(subscriptions, stopping, until_idle)
            finally:
                stopping.cancel()
            with _losing_the_broker():
                for subscription in subscriptions:
                    await subscription.channel.basic_cancel(subscription.tag)

    async def _consume_all(
        self, subscriptions: Sequence[_Subscription], stopping: asyncio.Task[Any], until_idle: float | None
    ) -> None:
        """Consume until all have ended; an error of one ends the others, after the batch that each is in."""
        over = asyncio.Event()

        async def consume(subscription: _Subscription) -> None:
            try:
                await self._consume(subscription, stopping, until_idle, over)
            except BaseException:
                over.set()
                for other in subscriptions:
                    other.buffer.stir()
                raise

        outcomes = await asyncio.gather(*map(consume, subscriptions), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _subscribe(
        self, connection: aio_pika.abc.AbstractConnection, queue: str, read: Reading
    ) -> _Subscription:
        buffer = Buffer()
        own_channel = await connection.channel(publisher_confirms=False)
        # aio-pika wraps each delivery once more; the channel below it halves the cost of a message.
        channel = await own_channel.get_underlay_channel()
        assert isinstance(channel, Channel)
        await channel.basic_qos(prefetch_count=min(2 * self._settings.batch_size, MAX_PREFETCH))
        tag = (await channel.basic_consume(queue, buffer.put)).consumer_tag
        assert tag is not None
        subscription = _Subscription(queue, channel, tag, buffer, read)
        channel.closing.add_done_callback(subscription.stir)
        return subscription

    async def _consume(
        self,
        subscription: _Subscription,
        stopping: asyncio.Task[Any],
        until_idle: float | None,
        over: asyncio.Event,
    ) -> None:
        loop = asyncio.get_running_loop()
        size, wait = self._settings.batch_size, self._settings.batch_wait / 1_000
        patience = CHECK if until_idle is None else min(CHECK, until_idle)
        while not (self._stop.is_set() or over.is_set()):
            deliveries = await subscription.buffer.batch(size, wait, patience)
            if deliveries:
                await self._process(subscription, deliveries, stopping)
                self._last_delivery = loop.time()
            elif subscription.channel.is_closed:
                raise BrokerLost("the channel was closed")
            elif subscription.tag not in subscription.channel.consumers:
                raise BrokerLost(f"the consumer of {subscription.queue} was cancelled; was the queue deleted?")
            elif until_idle is not None and loop.time() - self._last_delivery >= until_idle:
                return

    async def _process(
        self, subscription: _Subscription, deliveries: Sequence[DeliveredMessage], stopping: asyncio.Task[Any]
    ) -> None:
        """Settle a batch and acknowledge it, in this order."""
        now = datetime.now(UTC)
        settling = asyncio.ensure_future(
            self._settle([subscription.read(delivery, now) for delivery in deliveries])
        )
        try:
            await asyncio.wait({settling, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({settling}, timeout=DRAIN)
        finally:
            if not settling.done():
                settling.cancel()
                _log.warning("stopped before the commit; the messages go back", messages=len(deliveries))
        if settling.cancelled() or settling.cancelling():
            return
        settling.result()
        with _losing_the_broker():
            # Deliveries of one consumer are batched in their order, so the last tag stands for all before it.
            await subscription.channel.basic_ack(deliveries[-1].delivery_tag or 0, multiple=True)
        self._worked = True


@contextmanager
def _losing_the_broker() -> Iterator[None]:
    try:
        yield
    except BROKER_ERRORS as error:
        raise BrokerLost(explain(error)) from error
