"""Consuming from RabbitMQ: one batch, one transaction, and the acknowledgement after the commit.

A session is one connection, one channel and one buffer. Whatever ends it takes all three along, so a
delivery tag can never meet another channel; what was not acknowledged comes again and is a duplicate.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import aio_pika
import structlog
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import InvalidFrameError
from pamqp import commands as spec
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception, stop_when_event_set, wait_random_exponential

from worker.contract import clean
from worker.errors import DeviceopsError
from worker.intake import decoding  # noqa: F401  # makes the decoding of deliveries total
from worker.intake.buffer import Buffer
from worker.intake.topology import Topology
from worker.messages import Message, Origin
from worker.settings import Settings, without_password

MAX_PREFETCH = 2_000
"""Quorum queues take no more."""
CONNECT_TIMEOUT = 10
"""Seconds to wait for the broker to answer."""
DRAIN = 25
"""Seconds that a batch has to commit after a stop was asked for."""
CHECK = 1
"""Seconds between two looks whether the channel still consumes."""

BROKER_ERRORS = (AMQPError, ChannelInvalidStateError, OSError)

_log = structlog.get_logger()

Settle = Callable[[Sequence[Message]], Awaitable[object]]


class BrokerUnavailable(DeviceopsError):
    """No connection can be had; the message says why, without the password."""


class BrokerLost(Exception):
    """The session ended without our doing: connect again."""


@asynccontextmanager
async def connected(url: SecretStr) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    """A connection for the length of a block. Raises BrokerUnavailable if none can be had."""
    try:
        connection = await aio_pika.connect(
            url.get_secret_value(),
            timeout=CONNECT_TIMEOUT,
            client_properties={"connection_name": "deviceops"},
        )
    except BROKER_ERRORS as error:
        raise BrokerUnavailable(f"broker {without_password(url)}: {explain(error)}") from error
    async with connection:
        yield connection


def explain(error: BaseException) -> str:
    """A broker error in one line."""
    if isinstance(error, InvalidFrameError):  # how the client takes a refusal to open the virtual host
        return "closed the connection; does the virtual host exist, and may the user enter it?"
    text = " ".join(str(error).split())
    return text or ("does not answer" if isinstance(error, TimeoutError) else type(error).__name__)


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
        async with connected(self._settings.amqp_url) as connection:
            buffer = Buffer()
            with _losing_the_broker():
                own_channel = await connection.channel(publisher_confirms=False)
                await self._topology.declare(own_channel)
                # aio-pika wraps each delivery once more; the channel below it halves the cost of a message.
                channel = await own_channel.get_underlay_channel()
                assert isinstance(channel, Channel)
                await channel.basic_qos(prefetch_count=min(2 * self._settings.batch_size, MAX_PREFETCH))
                tag = (await channel.basic_consume(self._topology.reports, buffer.put)).consumer_tag
            assert tag is not None
            self._was_connected = True
            _log.info("consuming", queue=self._topology.reports, broker=without_password(self._settings.amqp_url))
            channel.closing.add_done_callback(lambda _: buffer.stir())
            stopping = asyncio.create_task(self._stop.wait())
            stopping.add_done_callback(lambda _: buffer.stir())
            try:
                await self._consume(channel, tag, buffer, stopping, until_idle)
            finally:
                stopping.cancel()
            with _losing_the_broker():
                await channel.basic_cancel(tag)

    async def _consume(
        self,
        channel: Channel,
        tag: str,
        buffer: Buffer,
        stopping: asyncio.Task[Any],
        until_idle: float | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        patience = CHECK if until_idle is None else min(CHECK, until_idle)
        last_delivery = loop.time()
        while not self._stop.is_set():
            deliveries = await buffer.batch(self._settings.batch_size, self._settings.batch_wait / 1_000, patience)
            if deliveries:
                await self._process(channel, deliveries, stopping)
                last_delivery = loop.time()
            elif channel.is_closed:
                raise BrokerLost("the channel was closed")
            elif tag not in channel.consumers:
                raise BrokerLost("the broker cancelled the consumer; was the queue deleted?")
            elif until_idle is not None and loop.time() - last_delivery >= until_idle:
                return

    async def _process(
        self, channel: Channel, deliveries: Sequence[DeliveredMessage], stopping: asyncio.Task[Any]
    ) -> None:
        """Settle a batch and acknowledge it, in this order."""
        now = datetime.now(UTC)
        settling = asyncio.ensure_future(self._settle([as_message(delivery, now) for delivery in deliveries]))
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
            await channel.basic_ack(deliveries[-1].delivery_tag or 0, multiple=True)
        self._worked = True


@contextmanager
def _losing_the_broker() -> Iterator[None]:
    try:
        yield
    except BROKER_ERRORS as error:
        raise BrokerLost(explain(error)) from error


def as_message(delivery: DeliveredMessage, received_at: datetime) -> Message:
    """What the processor needs of a delivery; the rest is read only if it becomes a dead letter."""
    properties = delivery.header.properties
    message_id, type_ = properties.message_id, properties.message_type
    return Message(
        body=delivery.body,
        received_at=received_at,
        message_id=clean(message_id) if message_id else None,
        type=clean(type_) if type_ else None,
        sent_at=properties.timestamp,
        origin=partial(_origin, delivery),
    )


def _origin(delivery: DeliveredMessage) -> Origin:
    given: dict[str, Any] = {name: value for name, value in delivery.header.properties if value not in (None, "")}
    names = {"message_type": "type"}  # its name in AMQP
    properties = {names.get(name, name): value for name, value in given.items() if name != "headers"}
    deliver = delivery.delivery
    assert isinstance(deliver, spec.Basic.Deliver)
    return Origin(deliver.exchange or "", deliver.routing_key or "", properties, given.get("headers", {}))
