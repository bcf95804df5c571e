"""The exchanges and queues on the broker: declared, verified, and upgraded from an older version.

The arguments of an existing queue cannot be changed, and a queue cannot be deleted without the risk of losing
messages. So where the dead-letter queue has the arguments of an older version, a second queue replaces it, and the
older one is consumed as long as it exists. Workers of both versions can run at the same time: a message in both
queues is kept once.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.common import FieldTable

from worker.errors import DeviceopsError

DELIVERY_LIMIT = 100
"""Redeliveries before the broker abandons a message. High, because each closing channel counts as one for every
message in flight; and explicit, because RabbitMQ 3.10 loses messages without a limit."""


DEAD_LETTER_LIMIT = 1_000_000
"""The same for the dead-letter queue, which nothing may leave: RabbitMQ 4 would drop messages after 20."""

_QUORUM: FieldTable = {"x-queue-type": "quorum"}


class DeclaredState(NamedTuple):
    """The state of the broker once everything is declared."""

    dead_letters: Sequence[str] = ()
    """The queues of dead letters to consume."""
    redeclared: Sequence[str] = ()
    """Queues and exchanges that were missing, though others existed: they had been deleted."""


@dataclass(frozen=True, slots=True)
class Topology:
    """The names that derive from a prefix."""

    prefix: str

    @property
    def exchange(self) -> str:
        """The exchange to which producers publish."""
        return self.prefix

    @property
    def reports(self) -> str:
        """The queue that workers consume."""
        return f"{self.prefix}.reports"

    @property
    def dead_letters(self) -> str:
        """The exchange and the queue for messages that the broker abandons."""
        return f"{self.prefix}.dead-letters"

    @property
    def successor(self) -> str:
        """The replacement of a dead-letter queue with the arguments of an older version."""
        return f"{self.dead_letters}.2"

    async def declare(self, channel: AbstractChannel) -> AbstractExchange:
        """Declare everything, and return the exchange to publish to.

        Raises DeviceopsError if something exists with other arguments, or may not be declared; the channel is
        closed then.
        """
        with self._refusals_as_errors():
            await self._declare_dead_letters(channel, self.dead_letters)
            return await self._declare_reports(channel)

    async def establish(self, connection: AbstractConnection) -> DeclaredState:
        """Declare everything for a worker. Raises as declare() does."""
        with self._refusals_as_errors():
            redeclared = await self._missing(connection)
            current, former = self.dead_letters, self.successor
            if await self._is_of_older_version(connection):
                current, former = former, current
            async with connection.channel(publisher_confirms=False) as channel:
                await self._declare_dead_letters(channel, current)
                await self._declare_reports(channel)
                if not await self._exists(connection, former):
                    return DeclaredState([current], redeclared)
                # Only after the other one is bound, so that no message misses both.
                await (await channel.get_queue(former, ensure=False)).unbind(self.dead_letters, "#")
                return DeclaredState([current, former], redeclared)

    async def _missing(self, connection: AbstractConnection) -> Sequence[str]:
        """What is missing, if anything else exists."""
        queues = []
        for name in (self.reports, self.dead_letters):
            if not await self._exists(connection, name):
                queues.append(name)
        present = await self.existing_exchanges(connection)
        exchanges = [name for name in (self.exchange, self.dead_letters) if name not in present]
        if len(queues) == len(exchanges) == 2:
            return []
        return [*(f"queue {name}" for name in queues), *(f"exchange {name}" for name in exchanges)]

    async def existing_exchanges(self, connection: AbstractConnection) -> Sequence[str]:
        """The exchanges that exist."""
        found = []
        for name in (self.exchange, self.dead_letters):
            with suppress(ChannelNotFoundEntity):
                async with connection.channel(publisher_confirms=False) as channel:
                    await channel.declare_exchange(name, passive=True)
                found.append(name)
        return found

    async def _declare_dead_letters(self, channel: AbstractChannel, name: str) -> None:
        exchange = await channel.declare_exchange(self.dead_letters, ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(
            name,
            durable=True,
            arguments={
                **_QUORUM,
                "x-delivery-limit": DEAD_LETTER_LIMIT,
                "x-overflow": "reject-publish",
                # To itself, which the broker never does: messages that a policy expires or abandons are retained.
                "x-dead-letter-exchange": self.dead_letters,
                "x-dead-letter-strategy": "at-least-once",
            },
        )
        await queue.bind(exchange, "#")

    async def _declare_reports(self, channel: AbstractChannel) -> AbstractExchange:
        exchange = await channel.declare_exchange(self.exchange, ExchangeType.TOPIC, durable=True)
        reports = await channel.declare_queue(
            self.reports,
            durable=True,
            arguments={
                **_QUORUM,
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": self.dead_letters,
                # At most once, the default, drops messages when the dead-letter exchange is missing.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",  # required by at-least-once
            },
        )
        await reports.bind(exchange, "#")
        return exchange

    async def _is_of_older_version(self, connection: AbstractConnection) -> bool:
        """Whether the queue of dead letters exists and has the arguments of version 0.1."""
        if not await self._exists(connection, self.dead_letters):
            return False
        try:
            async with connection.channel(publisher_confirms=False) as channel:
                await channel.declare_queue(self.dead_letters, durable=True, arguments=_QUORUM)
        except ChannelPreconditionFailed:
            return False
        return True

    async def _exists(self, connection: AbstractConnection, queue: str) -> AbstractQueue | None:
        try:
            async with connection.channel(publisher_confirms=False) as channel:
                return await channel.declare_queue(queue, passive=True)
        except ChannelNotFoundEntity:
            return None

    @contextmanager
    def _refusals_as_errors(self) -> Iterator[None]:
        """In the block, the broker's refusals become DeviceopsErrors."""
        try:
            yield
        except ChannelPreconditionFailed as error:
            raise DeviceopsError(_describe_difference(str(error))) from error
        except (ChannelAccessRefused, ChannelLockedResource) as error:
            raise DeviceopsError(f"the broker refuses to declare {self.prefix}: {error}") from error

    async def verify(self, connection: AbstractConnection) -> str:
        """Describe the queues; a missing one is not created. Raises DeviceopsError if one differs."""
        try:
            queue = await self._exists(connection, self.reports)
        except (ChannelAccessRefused, ChannelLockedResource) as error:
            raise DeviceopsError(f"the broker refuses to look at {self.reports}: {error}") from error
        if queue is None:
            return f"queue {self.reports}: not declared yet; `deviceops run` declares it"
        await self.establish(connection)
        waiting = queue.declaration_result.message_count or 0
        return f"queue {self.reports}: ready, {waiting:,} messages wait"

    async def waiting(self, connection: AbstractConnection) -> dict[str, int]:
        """How many messages each queue that exists has ready to be delivered."""
        found = {}
        for name in (self.reports, self.dead_letters, self.successor):
            if queue := await self._exists(connection, name):
                found[name] = queue.declaration_result.message_count or 0
        return found

    async def delete(self, channel: AbstractChannel) -> None:
        """Delete everything, with all messages."""
        for queue in (self.reports, self.dead_letters, self.successor):
            await channel.queue_delete(queue)
        for exchange in (self.exchange, self.dead_letters):
            await channel.exchange_delete(exchange)


def _describe_difference(refusal: str) -> str:
    """The broker's refusal in words, with the first argument that differs."""
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
