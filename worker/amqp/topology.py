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
from itertools import count
from typing import NamedTuple

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionCommandInvalid,
)
from pamqp.commands import Queue
from pamqp.common import FieldTable

from worker.errors import DeviceopsError

DELIVERY_LIMIT = 100
"""Redeliveries before the broker abandons a message. High, because each closing channel counts as one for every
message in flight; and explicit, because RabbitMQ 3.10 loses messages without a limit."""


DEAD_LETTER_LIMIT = 1_000_000
"""The same for the dead-letter queue, which nothing may leave: RabbitMQ 4 would drop messages after 20."""

ENABLE_PARTITIONS = "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"
"""The command that a broker needs for partitions, on each of its nodes."""
WEIGHT = "1"
"""The routing key by which a queue is bound to the distributor: its part of what the hash gives to all."""

_QUORUM: FieldTable = {"x-queue-type": "quorum"}


class DeclaredState(NamedTuple):
    """The state of the broker once everything is declared."""

    dead_letters: Sequence[str] = ()
    """The queues of dead letters to consume."""
    redeclared: Sequence[str] = ()
    """Queues and exchanges that were missing, though others existed: they had been deleted."""
    former: Sequence[int] = ()
    """The numbers of queues of reports from before a change of the partitions."""


@dataclass(frozen=True, slots=True)
class Topology:
    """The names that derive from a prefix.

    With `partitions` above 1, the exchange hands what it gets on to as many queues, by a hash of the routing key.
    Partitions are numbered from 1; 0 stands for the one queue that there is without them.
    """

    prefix: str
    partitions: int = 1

    @property
    def exchange(self) -> str:
        """The exchange to which producers publish."""
        return self.prefix

    @property
    def reports(self) -> str:
        """The queue that workers consume, without partitions."""
        return f"{self.prefix}.reports"

    @property
    def numbers(self) -> Sequence[int]:
        """The numbers of the queues that reports go to."""
        return range(1, self.partitions + 1) if self.partitions > 1 else (0,)

    def queue(self, number: int) -> str:
        """The queue of a number."""
        return f"{self.reports}.{number}" if number else self.reports

    @property
    def distributor(self) -> str:
        """The exchange that hands messages on to partitions, by a hash of the routing key."""
        return f"{self.prefix}.partitions"

    @property
    def dead_letters(self) -> str:
        """The exchange and the queue for messages that the broker abandons."""
        return f"{self.prefix}.dead-letters"

    @property
    def changes(self) -> str:
        """The exchange to which changes are published."""
        return f"{self.prefix}.changes"

    @property
    def successor(self) -> str:
        """The replacement of a dead-letter queue with the arguments of an older version."""
        return f"{self.dead_letters}.2"

    @property
    def queues(self) -> Sequence[str]:
        """The queues that are declared."""
        return [*map(self.queue, self.numbers), self.dead_letters]

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
            numbers = await self.existing(connection)
            redeclared = await self._missing(connection, numbers)
            current, former = self.dead_letters, self.successor
            if await self._is_of_older_version(connection):
                current, former = former, current
            async with connection.channel(publisher_confirms=False) as channel:
                await self._declare_dead_letters(channel, current)
                await self._declare_reports(channel)
                former_numbers = [number for number in numbers if number not in self.numbers]
                if not await self.look(connection, former):
                    return DeclaredState([current], redeclared, former_numbers)
                # Only after the other one is bound, so that no message misses both.
                await (await channel.get_queue(former, ensure=False)).unbind(self.dead_letters, "#")
                return DeclaredState([current, former], redeclared, former_numbers)

    async def existing(self, connection: AbstractConnection) -> Sequence[int]:
        """The numbers of the queues of reports that exist. Former partitions are removed from the last one on."""
        found = [0] if await self.look(connection, self.reports) else []
        for number in count(1):
            if await self.look(connection, self.queue(number)):
                found.append(number)
            elif number >= self.partitions:
                break
        return found

    async def bind(self, channel: AbstractChannel) -> None:
        """Have reports come to the declared queues, without declaring anything."""
        for number in self.numbers:
            await (await channel.get_queue(self.queue(number), ensure=False)).bind(*self._source(number))
        if self.partitions > 1:
            await (await channel.get_exchange(self.distributor, ensure=False)).bind(self.exchange, "#")

    async def unbind(self, channel: AbstractChannel, number: int) -> None:
        """Have a queue of reports get no more, once others are bound."""
        await (await channel.get_queue(self.queue(number), ensure=False)).unbind(*self._source(number))

    def _source(self, number: int) -> tuple[str, str]:
        """The exchange to which a queue of reports is bound, and the key."""
        return (self.distributor, WEIGHT) if number else (self.exchange, "#")

    async def _missing(self, connection: AbstractConnection, numbers: Sequence[int]) -> Sequence[str]:
        """What is missing, if anything else exists; a queue that more partitions add is not missing."""
        queues = [
            self.queue(number)
            for number in self.numbers
            if number not in numbers and (not numbers or 0 < number < max(numbers))
        ]
        if not await self.look(connection, self.dead_letters):
            queues.append(self.dead_letters)
        present = await self.existing_exchanges(connection)
        exchanges = [name for name in (self.exchange, self.dead_letters) if name not in present]
        if len(exchanges) == 2 and len(queues) == len(self.numbers) + 1:
            return []
        return [*(f"queue {name}" for name in queues), *(f"exchange {name}" for name in exchanges)]

    async def existing_exchanges(self, connection: AbstractConnection) -> Sequence[str]:
        """The exchanges that exist."""
        found = []
        for name in (self.exchange, self.dead_letters, self.changes):
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
        if self.partitions > 1:
            await self._declare_distributor(channel)
        for number in self.numbers:
            await channel.declare_queue(
                self.queue(number),
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
        await self.bind(channel)
        return exchange

    async def declare_changes(self, channel: AbstractChannel) -> None:
        """Declare the exchange of changes, to which listeners bind queues of their own.

        Raises DeviceopsError as `declare` does.
        """
        with self._refusals_as_errors():
            await channel.declare_exchange(self.changes, ExchangeType.TOPIC, durable=True)

    async def _declare_distributor(self, channel: AbstractChannel) -> AbstractExchange:
        return await channel.declare_exchange(self.distributor, ExchangeType.X_CONSISTENT_HASH, durable=True)

    async def can_partition(self, connection: AbstractConnection) -> bool:
        """Whether the broker has the plugin for partitions. Without it, the connection is closed."""
        try:
            with self._refusals_as_errors():
                async with connection.channel(publisher_confirms=False) as channel:
                    await self._declare_distributor(channel)
        except ConnectionCommandInvalid:  # an exchange of a type that the broker does not know
            return False
        return True

    async def _is_of_older_version(self, connection: AbstractConnection) -> bool:
        """Whether the queue of dead letters exists and has the arguments of version 0.1."""
        if not await self.look(connection, self.dead_letters):
            return False
        try:
            async with connection.channel(publisher_confirms=False) as channel:
                await channel.declare_queue(self.dead_letters, durable=True, arguments=_QUORUM)
        except ChannelPreconditionFailed:
            return False
        return True

    async def look(self, connection: AbstractConnection, queue: str) -> Queue.DeclareOk | None:
        """How many messages and consumers a queue has; None if there is none."""
        try:
            async with connection.channel(publisher_confirms=False) as channel:
                return (await channel.declare_queue(queue, passive=True)).declaration_result
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

    async def verify(self, connection: AbstractConnection) -> Sequence[str]:
        """Describe the queues, a line each; none is created.

        Raises DeviceopsError if, without partitions, something differs.
        """
        try:
            numbers = await self.existing(connection)
        except (ChannelAccessRefused, ChannelLockedResource) as error:
            raise DeviceopsError(f"the broker refuses to look at {self.reports}: {error}") from error
        if numbers == [0] and self.partitions == 1:
            await self.establish(connection)
        waiting = await self.waiting(connection)
        lines = []
        for number in sorted({*numbers, *self.numbers}):
            name = self.queue(number)
            if number not in numbers:
                needs = f", which needs the broker's plugin: {ENABLE_PARTITIONS}" if number else ""
                lines.append(f"queue {name}: not declared yet; `deviceops run` declares it{needs}")
            elif name in waiting:
                state = "ready" if number in self.numbers else "of another number of partitions"
                lines.append(f"queue {name}: {state}, {waiting[name]:,} messages wait")
        return lines

    async def verify_changes(self, connection: AbstractConnection) -> str:
        """Describe the exchange of changes in a line; it is created where the other exchanges exist.

        Raises DeviceopsError if it exists with other arguments, or may not be declared or written.
        """
        if self.exchange not in await self.existing_exchanges(connection):
            return f"exchange {self.changes}: not declared yet; `deviceops run` declares it"
        with self._refusals_as_errors():
            async with connection.channel(publisher_confirms=False) as channel:
                await self.declare_changes(channel)
                # Removes nothing, as nobody binds it so, and the broker asks for the right to write.
                written = await channel.get_exchange(self.changes, ensure=False)
                await written.unbind(self.exchange, "deviceops check")
        return f"exchange {self.changes}: ready"

    async def waiting(self, connection: AbstractConnection) -> dict[str, int]:
        """How many messages each queue that exists has ready to be delivered."""
        return {name: queue.message_count or 0 for name, queue in (await self.looks(connection)).items()}

    async def looks(self, connection: AbstractConnection) -> dict[str, Queue.DeclareOk]:
        """How many messages and consumers each queue that exists has; those of reports come first."""
        found = {name: await self.look(connection, name) for name in await self._queues(connection)}
        return {name: queue for name, queue in found.items() if queue is not None}

    async def delete(self, connection: AbstractConnection) -> None:
        """Delete everything, with all messages."""
        queues = await self._queues(connection)
        async with connection.channel() as channel:
            for queue in queues:
                await channel.queue_delete(queue)
            for exchange in (self.exchange, self.distributor, self.dead_letters, self.changes):
                await channel.exchange_delete(exchange)

    async def _queues(self, connection: AbstractConnection) -> Sequence[str]:
        """All that may exist."""
        return [*map(self.queue, await self.existing(connection)), self.dead_letters, self.successor]


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
