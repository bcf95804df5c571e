"""Batching: by size, by time, or early when there are few deliveries."""

import asyncio
import random
from collections import deque

from worker.amqp.delivery import Delivery
from worker.amqp.reading import is_poison_candidate

SMALL_BATCH = 50
"""Up to this number of deliveries, a batch does not wait for more: the rate is low."""
EMPTY_AFTER = 0.001
"""Seconds without a delivery after which the queue counts as empty."""


class Batcher:
    """The deliveries of one channel that are not yet in a batch; discarded with the channel.

    A poison candidate, whose workers keep crashing, gets a batch of its own, after the next batch of others; the
    candidates are taken in random order. So each run of a worker processes half of the messages that were
    delivered together with the poison message, until only that is left and the broker abandons it.
    """

    def __init__(self) -> None:
        self.received = 0
        """Number of deliveries so far."""
        self._deliveries: deque[Delivery] = deque()
        self._poison_candidates: list[Delivery] = []
        self._is_poison_turn = False
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._deliveries) + len(self._poison_candidates)

    @property
    def has_poison_candidates(self) -> bool:
        """Whether there are poison candidates, so that batches leave the order of delivery."""
        return bool(self._poison_candidates)

    def put(self, delivery: Delivery) -> None:
        """Add a delivery. Called as bytes arrive, so it must return at once."""
        self.received += 1
        (self._poison_candidates if is_poison_candidate(delivery) else self._deliveries).append(delivery)
        self._woken.set()

    def wake(self) -> None:
        """Wake the caller of `batch`, which may have to stop."""
        self._woken.set()

    async def has_any(self, wait: float) -> bool:
        """Whether there is a delivery, by so many seconds; earlier if `wake` is called."""
        self._woken.clear()
        if not self:
            try:
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            except TimeoutError:
                return False
        return len(self) > 0

    async def batch(self, size: int, wait: float) -> list[Delivery]:
        """The next deliveries, at most `size`; there has to be one.

        If there are more than a few, the rate is high: waits up to `wait` seconds for more.
        """
        if self._poison_candidates and (self._is_poison_turn or not self._deliveries):
            self._is_poison_turn = False
            drawn = random.randrange(len(self._poison_candidates))  # noqa: S311  # not for secrets
            return [self._poison_candidates.pop(drawn)]
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait
        while SMALL_BATCH < (before := len(self._deliveries)) < size and clock() < deadline:
            await asyncio.sleep(EMPTY_AFTER)
            if len(self._deliveries) == before:
                break
        self._is_poison_turn = True
        return [self._deliveries.popleft() for _ in range(min(size, len(self._deliveries)))]
