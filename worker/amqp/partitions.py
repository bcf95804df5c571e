"""Partitions: the queues of reports that are this worker's share, as others come, leave and die.

Correctness never depends on it: two workers at one queue, or a report in two queues, are duplicates at most. So
workers need no agreement. Each announces itself in the database, sees who else does, and takes its share.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from uuid import UUID, uuid4

import structlog
from pamqp.commands import Queue

from worker.amqp.connection import Connection
from worker.amqp.subscription import Subscription
from worker.amqp.topology import Topology
from worker.model.sharing import Peer, share

RENEWAL = 2
"""Seconds between two looks at who there is."""
QUIET = 60
"""Seconds for which a former queue has to be empty before it is removed: a message may be on its way to it."""

_log = structlog.get_logger()


class Peers(Protocol):
    """The workers that consume the reports of one prefix."""

    async def renew(self, own: Peer) -> Sequence[Peer] | None:
        """Announce this worker, and return all, this one included; None if that is not known at present."""

    async def leave(self, own: UUID) -> None:
        """Take this worker's announcement back."""


class Alone:
    """No other workers."""

    async def renew(self, own: Peer) -> Sequence[Peer]:
        """Return this worker only."""
        return [own]

    async def leave(self, own: UUID) -> None:
        """Do nothing."""


class Partitions:
    """This worker's share of the queues of reports, for one session."""

    def __init__(self, topology: Topology, peers: Peers) -> None:
        self._topology = topology
        self._peers = peers
        self._own = Peer(uuid4(), topology.partitions)
        self._seen: Sequence[Peer] = [self._own]
        self._known = {*topology.numbers}
        """The queues of reports that there are, by number."""
        self.held: dict[int, Subscription] = {}
        """Those that are consumed."""
        self._quiet_since: dict[int, float] = {}
        """When a former queue was first seen empty, by the loop's clock."""

    @property
    def _wanted(self) -> set[int]:
        """The queues that any worker declares; others are former ones."""
        topologies = (Topology(self._topology.prefix, peer.partitions) for peer in self._seen)
        return {number for topology in topologies for number in topology.numbers}

    async def announce(self) -> bool:
        """Whether workers came or went since the last announcement.

        First called before the queues are declared, so that nobody removes as a former one what is in use again.
        """
        peers = await self._peers.renew(self._own)
        before, self._seen = self._seen, sorted(peers or self._seen)
        self._known |= self._wanted
        return self._seen != before

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
        await self._unbind_former()

    async def keep(self) -> None:
        """Take the share anew whenever workers come or go, and remove former queues. Does not return."""
        while True:
            await asyncio.sleep(RENEWAL)
            if await self.announce():
                await self._bind()
                await self._take_share()
                await self._unbind_former()
            for number in self.held.keys() - self._wanted:
                if self._is_quiet(number):
                    await self._remove(number)

    async def leave(self) -> None:
        """Leave the share to the others."""
        await self._peers.leave(self._own.id)

    async def _bind(self) -> None:
        """Have reports come to the queues that we declare: others may have taken them for former ones."""
        async with self._connection.channel(publisher_confirms=False) as channel:
            await self._topology.bind(channel)

    async def _unbind_former(self) -> None:
        if former := self.held.keys() - self._wanted:
            async with self._connection.channel(publisher_confirms=False) as channel:
                for number in former:
                    await self._topology.unbind(channel, number)

    async def _take_share(self) -> None:
        own = share(self._own.id, self._seen, self._known)
        for number in sorted(self.held.keys() - own):
            self._quiet_since.pop(number, None)
            await self.held.pop(number).release()
        for number in sorted(own - self.held.keys()):
            if number in self._topology.numbers or await self._look(number):
                self.held[number] = await self._consume(self._topology.queue(number))
            else:
                self._known.remove(number)
        if self._known != {0}:
            queues = [self._topology.queue(number) for number in sorted(self.held)]
            _log.info("partitions shared", workers=len(self._seen), queues=queues)

    async def _look(self, number: int) -> Queue.DeclareOk | None:
        return await self._topology.look(self._connection, self._topology.queue(number))

    def _is_quiet(self, number: int) -> bool:
        """Whether a former queue has been empty for long enough."""
        now = asyncio.get_running_loop().time()
        queue = self.held[number]
        if queue.waiting != 0 or queue.unacknowledged or queue.consumers != 1:
            self._quiet_since.pop(number, None)
            return False
        return now - self._quiet_since.setdefault(number, now) >= QUIET

    async def _remove(self, number: int) -> None:
        """Remove a former queue, after those with higher numbers, if nothing has come since it was looked at."""
        if number and await self._look(number + 1):
            return
        found = await self._look(number)
        if found is None or found.message_count or found.consumer_count != 1:
            return
        await self.announce()
        if number in self._wanted:
            return
        self._known.remove(number)
        await self.held.pop(number).release()
        queue = self._topology.queue(number)
        async with self._connection.channel(publisher_confirms=False) as channel:
            await channel.queue_delete(queue)
        _log.info("removed a former queue, which was empty", queue=queue)
