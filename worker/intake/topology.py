"""The broker's side of the contract (SPEC section 5): exchanges and queues, declared and verified."""

import re
from dataclasses import dataclass

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from worker.errors import DeviceopsError

DELIVERY_LIMIT = 100
"""Redeliveries before the broker gives a message up. Generous, because each channel that closes counts as
one for every message it had in flight; and explicit, because RabbitMQ 3.10 loses messages without one."""


@dataclass(frozen=True, slots=True)
class Topology:
    """The names that derive from a prefix."""

    prefix: str

    @property
    def exchange(self) -> str:
        """Where producers publish."""
        return self.prefix

    @property
    def reports(self) -> str:
        """The queue that workers consume."""
        return f"{self.prefix}.reports"

    @property
    def dead_letters(self) -> str:
        """The exchange and the queue for what the broker itself gives up on."""
        return f"{self.prefix}.dead-letters"

    async def declare(self, channel: AbstractChannel) -> AbstractExchange:
        """Declare everything, and return the exchange to publish to.

        What exists with other arguments, or may not be declared, is a DeviceopsError that says what and why;
        the channel is closed then.
        """
        try:
            return await self._declare(channel)
        except ChannelPreconditionFailed as error:
            raise DeviceopsError(_difference(str(error))) from error
        except (ChannelAccessRefused, ChannelLockedResource) as error:
            raise DeviceopsError(f"the broker refuses to declare {self.prefix}: {error}") from error

    async def _declare(self, channel: AbstractChannel) -> AbstractExchange:
        dead_exchange = await channel.declare_exchange(self.dead_letters, ExchangeType.TOPIC, durable=True)
        dead_queue = await channel.declare_queue(
            self.dead_letters, durable=True, arguments={"x-queue-type": "quorum"}
        )
        await dead_queue.bind(dead_exchange, "#")
        exchange = await channel.declare_exchange(self.exchange, ExchangeType.TOPIC, durable=True)
        reports = await channel.declare_queue(
            self.reports,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": self.dead_letters,
                # At most once, the default, drops messages when the dead-letter exchange is missing.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",  # at-least-once asks for it
            },
        )
        await reports.bind(exchange, "#")
        return exchange

    async def verify(self, connection: AbstractConnection) -> str:
        """Say how the topology stands; a missing queue is not created. Raises DeviceopsError if it differs."""
        channel = await connection.channel()
        try:
            queue = await channel.declare_queue(self.reports, passive=True)
        except (ChannelAccessRefused, ChannelLockedResource) as error:
            raise DeviceopsError(f"the broker refuses to look at {self.reports}: {error}") from error
        except ChannelNotFoundEntity:
            return f"queue {self.reports}: not declared yet; `deviceops run` declares it"
        await self.declare(channel)
        waiting = queue.declaration_result.message_count or 0
        return f"queue {self.reports}: ready, {waiting:,} messages wait"

    async def delete(self, channel: AbstractChannel) -> None:
        """Remove everything, with whatever messages are left; for demonstrations and tests."""
        for queue in (self.reports, self.dead_letters):
            await channel.queue_delete(queue)
        for exchange in (self.exchange, self.dead_letters):
            await channel.exchange_delete(exchange)


def _difference(refusal: str) -> str:
    """The broker's refusal in words: it names the first argument that differs."""
    found = re.search(
        r"inequivalent arg '(?P<argument>[^']+)' for (?P<what>\w+) '(?P<name>[^']+)'.*?"
        r"received (?:the value )?'?(?P<wanted>[^']+?)'?(?: of type '\w+')? "
        r"but current is (?:the value )?'?(?P<current>[^']+?)'?(?: of type '\w+')?$",
        refusal,
    )
    if found is None:
        return f"the broker's topology differs from what deviceops needs: {refusal}"
    return (
        f"{found['what']} {found['name']} exists with other arguments: {found['argument']} is {found['current']}, "
        f"deviceops needs {found['wanted']}; delete it or set another DEVICEOPS_TOPOLOGY_PREFIX"
    )
