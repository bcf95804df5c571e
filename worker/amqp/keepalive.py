"""Keeps queues in use while nothing is consumed, since a policy of the broker may delete unused ones (`expires`).

Of a quorum queue neither a look nor another declaration counts as use, only a consumer (RabbitMQ 3.10 and 4.0).
So each has one, which is given one message and leaves it alone.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from worker.amqp.connection import CONNECT_TIMEOUT, Connection, connected
from worker.amqp.session import BrokerLost, losing_the_broker
from worker.amqp.topology import Established, Topology
from worker.config.settings import Settings
from worker.errors import DeviceopsError

AFTER = 10
"""Seconds of waiting after which queues are kept in use: an outage that ends sooner gives nothing more back."""
LOOK = 1
"""Seconds between two looks whether they still are, and between two tries to connect."""
ENOUGH = 50
"""Deliveries of a message after which its queue is no longer kept in use: each lease counts as one, and the broker
gives a message up after 100."""

_log = structlog.get_logger()


class Lease:
    """Keeps the queues in use for as long as it runs; `note` hears of what it had to declare."""

    def __init__(self, settings: Settings, note: Callable[[Established], None]) -> None:
        self._settings = settings
        self._topology = Topology(settings.topology_prefix)
        self._note = note
        self._spared: set[str] = set()

    async def run(self) -> None:
        """Keep the queues in use until cancelled, whatever the broker does meanwhile."""
        await asyncio.sleep(AFTER)
        while True:
            with suppress(DeviceopsError, BrokerLost):  # who consumes next says what is wrong
                async with connected(self._settings) as connection:
                    with losing_the_broker():
                        await self._hold(connection)
            await asyncio.sleep(LOOK)

    async def _hold(self, connection: Connection) -> None:
        """Consume until a queue is gone, or before the broker would take back what is not acknowledged."""
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * self._settings.hold_timeout
        async with asyncio.timeout(CONNECT_TIMEOUT):
            found = await self._topology.establish(connection)
            self._note(found)
            queues = {self._topology.reports, *found.dead_letters} - self._spared
            consumers = [await self._consume(connection, queue) for queue in queues]
        while loop.time() < until and all(tag in channel.consumers for channel, tag in consumers):  # noqa: ASYNC110
            await asyncio.sleep(LOOK)

    async def _consume(self, connection: Connection, queue: str) -> tuple[Channel, str]:
        async def leave_alone(message: DeliveredMessage) -> None:
            headers = message.header.properties.headers or {}
            count = headers.get("x-delivery-count")
            if isinstance(count, int) and count >= ENOUGH:
                self._spared.add(queue)
                _log.warning("no longer kept in use: a message of it was delivered too often", queue=queue)

        channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        assert isinstance(channel, Channel)
        await channel.basic_qos(prefetch_count=1)
        tag = (await channel.basic_consume(queue, leave_alone)).consumer_tag
        assert tag is not None
        return channel, tag
