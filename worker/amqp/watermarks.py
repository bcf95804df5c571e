"""Watermarks of the queues that a session consumes: see `worker.model.watermark`.

Each round asks the broker for every queue, over the connection that the deliveries use: what the broker has
delivered before its answer has been received with it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol
from uuid import UUID, uuid4

from pamqp.commands import Queue

from worker.amqp.subscription import Subscription
from worker.dependency import Dependency
from worker.model.watermark import Look, Own, Phase, Progress, is_confirmed, processed_until

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


class _Queue:
    """What is known of one consumed queue."""

    def __init__(self) -> None:
        self.look: Look | None = None
        self.processed_until = 0
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


class Watermarks:
    """Finds, for one session, up to which moment everything that was published is processed.

    `queues` gives the names of all queues of reports, `subscriptions` those that this worker consumes, and
    `inspect` asks the broker for a queue. `grace` is the seconds of uninterrupted consuming before anything may be
    said; `database` interrupts it when it is down.
    """

    def __init__(
        self,
        store: ProgressStore,
        queues: Callable[[], Collection[str]],
        subscriptions: Callable[[], Sequence[Subscription]],
        inspect: Callable[[str], Awaitable[Queue.DeclareOk]],
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

    def limit(self) -> int | None:
        """The moment up to which timeouts may be taken, in milliseconds since 1970; None if none may."""
        now = asyncio.get_running_loop().time()
        self._wanted_at = now
        if now - self._began_at < self._grace:
            return None
        return processed_until(self._rows, self._queues())

    async def keep(self) -> None:
        """Measure while somebody asks. Does not return; raises the broker's errors."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(INTERVAL)
            if self._database is not None and self._database.error is not None:
                self._began_at = loop.time()
            if loop.time() - self._wanted_at < WANTED:
                await self._measure()

    async def leave(self) -> None:
        """Say that this worker consumes nothing any more, once its connection to the broker is closed."""
        if self._is_announced:
            await self._store.leave(self._own)

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        self._is_announced = True
        subscriptions = {each.queue: each for each in self._subscriptions()}
        now = loop.time()
        own = []
        for name in self._known.keys() | subscriptions.keys():
            known = self._known.setdefault(name, _Queue())
            subscription = subscriptions.get(name)
            if subscription is None:
                self._known.pop(name)
                own.append(Own(name, Phase.GONE, 0, known.processed_until))
                continue
            phase = Phase.DRAINING if subscription.is_released else Phase.CONSUMING
            age = round(1_000 * (now - known.settled_at(subscription))) + 1
            own.append(Own(name, phase, age, known.processed_until))
        answer = await self._store.renew(self._own, own)
        if answer is None:
            return
        clock, self._rows = answer
        answered_at = loop.time()

        def now_by_the_clock() -> int:
            return clock + round(1_000 * (loop.time() - answered_at))

        for name, subscription in subscriptions.items():
            known = self._known[name]
            if known.look is not None:
                rows = [row for row in self._rows if row.queue == name]
                is_processed = is_confirmed(known.look, rows, clock)
                if is_processed:
                    known.processed_until = known.look.began
                if is_processed is not False:
                    known.look = None
            if subscription.is_released:
                continue
            asked_at = loop.time()
            found = await self._inspect(name)
            known.sample(asked_at, subscription.batcher.received)
            if known.look is None and not found.message_count:
                known.look = Look(clock, now_by_the_clock(), found.consumer_count or 0)
        # Of its own queues it knows more than it has said yet.
        mine = [
            Progress(self._own, name, Phase.CONSUMING, clock, 0, known.processed_until)
            for name, known in self._known.items()
        ]
        self._rows = [*self._rows, *mine]
