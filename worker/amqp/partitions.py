"""Partitions: the queues of reports that are this worker's share, as others come, leave and die.

Correctness never depends on it: two workers at one queue, or a report in two queues, are duplicates at most. So
workers need no agreement. Each announces itself in the database, sees who else does, and takes its share.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID, uuid4

import structlog
from pamqp.commands import Queue

from worker.amqp.connection import Connection
from worker.amqp.subscription import Subscription
from worker.amqp.topology import Topology
from worker.model.sharing import Peer, share

RENEWAL = 1.5
"""Seconds between two looks at who there is."""
BINDING = 30
"""Seconds between two times that the declared queues are bound again, lest others took them for former ones."""
STABLE = 10
"""Seconds for which the same workers have to be there before a former queue is unbound: all know of all then."""
QUIET = 60
"""Seconds without a message after which a former queue is removed: one may be on its way to it."""
MAX_AGE = 1
"""Seconds since the database answered within which a queue may be removed."""
UNKNOWN = 30
"""Seconds without an answer from the database after which a worker consumes as if it were alone."""

_log = structlog.get_logger()


class Peers(Protocol):
    """The workers that consume the reports of one prefix."""

    async def renew(self, own: Peer, *, is_sharing: bool) -> Sequence[Peer] | None:
        """Announce this worker, and return all, this one included; None if that is not known at present.

        `is_sharing` is whether it knows of partitions: others need not hear of one that does not.
        """

    async def leave(self, own: UUID) -> None:
        """Take this worker's announcement back."""


class Alone:
    """No other workers."""

    async def renew(self, own: Peer, *, is_sharing: bool) -> Sequence[Peer]:  # noqa: ARG002  # the protocol's
        """Return this worker only."""
        return [own]

    async def leave(self, own: UUID) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Former:
    """A former queue that is held: since when nothing came to it, by the loop's clock."""

    since: float
    received: int
    """Deliveries by then."""


class Partitions:
    """This worker's share of the queues of reports, for one session."""

    def __init__(self, topology: Topology, peers: Peers) -> None:
        self._topology = topology
        self._peers = peers
        self._own = Peer(uuid4(), topology.partitions)
        self._seen: Sequence[Peer] = [self._own]
        now = asyncio.get_running_loop().time()
        self._answered_at, self._changed_at, self._bound_at = now, now, now
        """When the database answered, what it answered changed, and the queues were bound, by the loop's clock."""
        self._known = {*topology.numbers}
        """The queues of reports that there are, by number."""
        self.held: dict[int, Subscription] = {}
        """Those that are consumed."""
        self._former: dict[int, _Former] = {}

    @property
    def _wanted(self) -> set[int]:
        """The queues that any worker declares; others are former ones."""
        topologies = (Topology(self._topology.prefix, peer.partitions) for peer in self._seen)
        return {number for topology in topologies for number in topology.numbers}

    def queues(self) -> Collection[str]:
        """The names of the queues of reports that there are, whoever consumes them."""
        return {self._topology.queue(number) for number in self._known}

    async def announce(self) -> bool:
        """Whether the database answered who there is.

        First called before the queues are declared, so that nobody removes as a former one what is in use again.
        """
        peers = await self._peers.renew(self._own, is_sharing=self._known != {0})
        now = asyncio.get_running_loop().time()
        if peers is None and now - self._answered_at < UNKNOWN:
            return False
        before, self._seen = self._seen, [self._own] if peers is None else sorted(peers)
        if peers is not None:
            self._answered_at = now
        if peers is None or self._seen != before:
            self._changed_at = now
        self._known |= self._wanted
        return peers is not None

    async def open(
        self, connection: Connection, consume: Callable[[str], Awaitable[Subscription]], former: Sequence[int]
    ) -> None:
        """Take this worker's share: `consume` its queues.

        `former` are queues from before a change of the partitions.
        """
        self._connection = connection
        self._consume = consume
        self._known.update(former)
        await self._take_share()

    async def keep(self) -> None:
        """Take the share anew whenever workers come or go, and remove former queues. Does not return."""
        is_answered = True
        while True:
            await asyncio.sleep(RENEWAL if is_answered else 5 * RENEWAL)
            is_answered = await self.announce()
            now = asyncio.get_running_loop().time()
            if self._known != {0} and (self._changed_at > self._bound_at or now - self._bound_at > BINDING):
                self._bound_at = now
                await self._bind()
            await self._take_share()
            if is_answered and now - self._changed_at > STABLE:
                await self._retire()
            else:
                self._former.clear()

    async def leave(self) -> None:
        """Leave the share to the others."""
        await self._peers.leave(self._own.id)

    async def _bind(self) -> None:
        async with self._connection.channel(publisher_confirms=False) as channel:
            await self._topology.bind(channel)

    async def _take_share(self) -> None:
        own, before = share(self._own.id, self._seen, self._known), self.held.keys() | set()
        for number in sorted(self.held.keys() - own):
            await self.held.pop(number).release()
        for number in sorted(own - self.held.keys()):
            if number in self._topology.numbers or await self._look(number):
                self.held[number] = await self._consume(self._topology.queue(number))
            elif number not in self._wanted:  # else its worker is about to declare it
                self._known.remove(number)
        if self.held.keys() != before and self._known != {0}:
            queues = [self._topology.queue(number) for number in sorted(self.held)]
            _log.info("partitions shared", workers=len(self._seen), queues=queues)

    async def _look(self, number: int) -> Queue.DeclareOk | None:
        return await self._topology.look(self._connection, self._topology.queue(number))

    async def _retire(self) -> None:
        """Unbind the former queues that are held, and remove those to which nothing has come for long enough."""
        former = self.held.keys() - self._wanted
        self._former = {number: found for number, found in self._former.items() if number in former}
        if not former:
            return
        async with self._connection.channel(publisher_confirms=False) as channel:
            for number in former:  # each time, as others may have bound them again
                await self._topology.unbind(channel, number)
        for number in sorted(former, reverse=True):
            if await self._is_done(number):
                await self._remove(number)

    async def _is_done(self, number: int) -> bool:
        """Whether a former queue is empty, and nothing has come to it for long enough."""
        now, held = asyncio.get_running_loop().time(), self.held[number]
        known = self._former.setdefault(number, _Former(now, held.batcher.received))
        found = await self._look(number)
        if (
            found is None
            or found.message_count
            or found.consumer_count != 1
            or held.unacknowledged
            or held.batcher.received != known.received
        ):
            self._former.pop(number)
            return False
        return now - known.since >= QUIET

    async def _remove(self, number: int) -> None:
        """Remove a former queue, after those with higher numbers.

        RabbitMQ does not support `if-empty` for quorum queues. So the answers have to be recent, and a worker that
        declares the queue again announces itself first.
        """
        loop, queue = asyncio.get_running_loop(), self._topology.queue(number)
        if number and await self._look(number + 1):
            return
        async with self._connection.channel(publisher_confirms=False) as channel:
            if not await self.announce() or number in self._wanted or not await self._is_done(number):
                return
            if loop.time() - self._answered_at > MAX_AGE:
                return
            self._known.remove(number)
            held = self.held.pop(number)
            held.is_released = True  # now: the broker cancels its consumer with it
            await channel.queue_delete(queue)
        await held.release()
        _log.info("removed a former queue, which was empty", queue=queue)
