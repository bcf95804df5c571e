"""Watermarks of the queues that a session consumes: see `worker.model.watermark`.

Each round asks the broker for every queue, and waits until what the broker has delivered from it before its answer
has come as well.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from math import ceil
from typing import Protocol
from uuid import UUID, uuid4

from pamqp.commands import Queue

from worker.amqp.subscription import Subscription
from worker.dependency import Dependency
from worker.model.watermark import Look, Own, Phase, Progress, is_confirmed, known_consumers, processed_until

INTERVAL = 0.5
"""Seconds between two rounds."""
WANTED = 30
"""Seconds after a question for which rounds go on."""


class ProgressStore(Protocol):
    """How far all workers have come."""

    async def renew(self, worker_id: UUID, own: Sequence[Own]) -> tuple[int, Sequence[Progress]] | None:
        """Say how far this worker has come; returns the database's clock and the rows of all, None if unknown."""

    async def leave(self, worker_id: UUID) -> None:
        """Say that this worker consumes nothing any more."""


class _Deliveries:
    """Which deliveries of a subscription are settled."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=1_000)
        """When the broker was asked, and how many deliveries had come by its answer."""
        self._settled_at = 0.0

    def sample(self, asked_at: float, received: int) -> None:
        """Note that everything delivered before `asked_at` was received, by the loop's clock."""
        self._samples.append((asked_at, received))

    def settled_at(self, subscription: Subscription) -> float:
        """What was delivered before this moment is settled, by the loop's clock."""
        while self._samples and not subscription.batcher.has_poison_candidates:  # else they leave the order
            asked_at, received = self._samples[0]
            if received > subscription.acknowledged:
                break
            self._settled_at = asked_at
            self._samples.popleft()
        return self._settled_at


class _Queue:
    """What is known of one consumed queue."""

    def __init__(self) -> None:
        self.look: Look | None = None
        self.processed_until = 0
        self.deliveries: dict[Subscription, _Deliveries] = {}
        """Of each subscription: one that was released may still have some when the queue is consumed again."""

    def settled_at(self, subscriptions: Sequence[Subscription]) -> float:
        """What was delivered before this moment is settled, by the loop's clock."""
        self.deliveries = {each: self.deliveries.get(each) or _Deliveries() for each in subscriptions}
        return min(deliveries.settled_at(each) for each, deliveries in self.deliveries.items())


class Watermarks:
    """Finds, for one session, up to which moment everything that was published is processed.

    `queues` gives the names of all queues of reports, `subscriptions` those that this worker consumes, and
    `inspect` asks the broker for a queue, and waits for its deliveries. `grace` is the seconds of uninterrupted
    consuming before anything may be said; `database` interrupts it when it is down.
    """

    def __init__(
        self,
        store: ProgressStore,
        queues: Callable[[], Collection[str]],
        subscriptions: Callable[[], Sequence[Subscription]],
        inspect: Callable[[Subscription], Awaitable[Queue.DeclareOk | None]],
        grace: float,
        database: Dependency | None = None,
    ) -> None:
        self._store = store
        self._queues = queues
        self._subscriptions = subscriptions
        self._inspect = inspect
        self._grace = grace
        self._database = database
        self._own = uuid4()
        self._known: dict[str, _Queue] = {}
        self._rows: Sequence[Progress] = ()
        self._began_at = asyncio.get_running_loop().time()
        self._wanted_at = -float(WANTED)
        self._is_announced = False

    def limit(self, clock: int) -> int | None:
        """The moment up to which timeouts may be taken; None if none may.

        Like `clock`, the database's, in milliseconds since 1970.
        """
        now = asyncio.get_running_loop().time()
        self._wanted_at = now
        if now - self._began_at < self._grace:
            return None
        return processed_until(self._rows, self._queues(), clock)

    async def keep(self) -> None:
        """Measure while somebody asks. Does not return; raises the broker's errors."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(INTERVAL)
            if self._database is not None and self._database.error is not None:
                self._began_at = loop.time()
            if loop.time() - self._wanted_at < WANTED:
                await self._measure()
            elif self._known:
                # The clock may be set back, and catch up again, while nobody sees it.
                self._known, self._rows = {}, ()

    async def leave(self) -> None:
        """Say that this worker consumes nothing any more, once its connection to the broker is closed."""
        if self._is_announced:
            await self._store.leave(self._own)

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        self._is_announced = True
        subscriptions: defaultdict[str, list[Subscription]] = defaultdict(list)
        for each in self._subscriptions():
            subscriptions[each.queue].append(each)
        own = []
        for name in self._known.keys() | subscriptions.keys():
            known = self._known.setdefault(name, _Queue())
            if name not in subscriptions:
                self._known.pop(name)
                own.append(Own(name, Phase.GONE, 0, known.processed_until))
                continue
            is_consumed = any(not each.is_released for each in subscriptions[name])
            phase = Phase.CONSUMING if is_consumed else Phase.DRAINING
            own.append(Own(name, phase, known.settled_at(subscriptions[name]), known.processed_until))
        began_at = loop.time()
        answer = await self._store.renew(self._own, own)
        if answer is None:
            return
        clock, self._rows = answer
        for name, known in self._known.items():
            rows = [row for row in self._rows if row.queue == name]
            self._judge(known, rows, clock)
            subscription = subscriptions[name][-1]
            if subscription.is_released:
                continue
            asked_at = loop.time()
            found = await self._inspect(subscription)
            if found is None:
                continue
            known.deliveries[subscription].sample(asked_at, subscription.batcher.received)
            consumers = found.consumer_count or 0
            if known.look is None and not found.message_count and consumers <= known_consumers(rows, clock):
                # At the latest: the clock was read after `began_at`.
                known.look = Look(clock, clock + 1 + ceil(1_000 * (loop.time() - began_at)), consumers)
        # Of its own queues it knows more than it has said yet.
        mine = [
            Progress(self._own, name, Phase.CONSUMING, clock, 0, known.processed_until)
            for name, known in self._known.items()
        ]
        self._rows = [*self._rows, *mine]

    def _judge(self, known: _Queue, rows: Sequence[Progress], clock: int) -> None:
        """See what has come of the last look at a queue."""
        if known.processed_until > clock:
            known.processed_until = 0  # the clock was set back: see `of_this_time`
        if known.look is not None:
            is_processed = is_confirmed(known.look, rows, clock)
            if is_processed:
                known.processed_until = known.look.began
            if is_processed is not False:
                known.look = None
