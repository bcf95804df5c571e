"""Keeps queues in use while nothing is consumed: a policy of the broker may delete unused ones (`expires`).

For a quorum queue only a consumer counts as use (RabbitMQ 3.10 and 4.0), neither a passive declaration nor another
one. So each queue gets a consumer, which receives one message and does not acknowledge it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from worker.amqp.connection import CONNECT_TIMEOUT, BrokerLost, Connection, connected
from worker.amqp.session import broker_errors_as_lost
from worker.amqp.topology import DeclaredState, Topology
from worker.config.settings import Settings
from worker.errors import DeviceopsError

DELAY = 10
"""Seconds of an outage after which queues are kept in use; a shorter one returns no message again."""
INTERVAL = 1
"""Seconds between two checks, and between two attempts to connect."""
MAX_DELIVERIES = 50
"""Deliveries of a message after which its queue is no longer kept in use: each keepalive counts as one, and the
broker abandons a message after 100."""

_log = structlog.get_logger()


class Keepalive:
    """Keeps the queues in use while it runs.

    `topology` is what to declare, asked of the broker; `on_declared` receives what was missing.
    """

    def __init__(
        self,
        settings: Settings,
        topology: Callable[[], Awaitable[Topology]],
        on_declared: Callable[[DeclaredState], None],
    ) -> None:
        self._settings = settings
        self._topology = topology
        self._on_declared = on_declared
        self._released: set[str] = set()

    async def run(self) -> None:
        """Keep the queues in use until cancelled; failures of the broker are retried."""
        await asyncio.sleep(DELAY)
        while True:
            with suppress(DeviceopsError, BrokerLost):  # the next consumer reports it
                topology = await self._topology()
                async with connected(self._settings) as connection:
                    with broker_errors_as_lost():
                        await self._hold(connection, topology)
            await asyncio.sleep(INTERVAL)

    async def _hold(self, connection: Connection, topology: Topology) -> None:
        """Consume until a queue is gone, or shortly before the broker's acknowledgement timeout."""
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * self._settings.hold_timeout
        async with asyncio.timeout(CONNECT_TIMEOUT + topology.partitions):
            found = await topology.establish(connection)
            self._on_declared(found)
            reports = map(topology.queue, (*topology.numbers, *found.former))
            queues = {*reports, *found.dead_letters} - self._released
            consumers = [await self._consume(connection, queue) for queue in queues]
        while loop.time() < until and all(tag in channel.consumers for channel, tag in consumers):  # noqa: ASYNC110
            await asyncio.sleep(INTERVAL)

    async def _consume(self, connection: Connection, queue: str) -> tuple[Channel, str]:
        async def leave_alone(message: DeliveredMessage) -> None:
            headers = message.header.properties.headers or {}
            count = headers.get("x-delivery-count")
            if isinstance(count, int) and count >= MAX_DELIVERIES:
                self._released.add(queue)
                _log.warning("queue is no longer kept in use: a message was delivered too often", queue=queue)

        channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        assert isinstance(channel, Channel)
        await channel.basic_qos(prefetch_count=1)
        tag = (await channel.basic_consume(queue, leave_alone)).consumer_tag
        assert tag is not None
        return channel, tag
