"""Batching: by size, by time, or early when there are few deliveries."""

import asyncio
import random
from collections import deque

from worker.amqp.delivery import Delivery
from worker.amqp.reading import is_suspect

FEW = 50
"""Up to this number of deliveries, a batch does not wait for more: the rate is low."""
DRY_AFTER = 0.001
"""Seconds without a delivery after which the queue counts as empty."""


class Buffer:
    """The deliveries of one channel that are not yet in a batch; discarded with the channel.

    A poison candidate, whose workers keep crashing, gets a batch of its own, after the next batch of others; the
    candidates are taken in random order. So each run of a worker processes half of the messages that were
    delivered together with the poison message, until only that is left and the broker abandons it.
    """

    def __init__(self) -> None:
        self.received = 0
        """Number of deliveries so far."""
        self._deliveries: deque[Delivery] = deque()
        self._suspects: list[Delivery] = []
        self._is_suspects_turn = False
        self._stirred = asyncio.Event()

    def __len__(self) -> int:
        return len(self._deliveries) + len(self._suspects)

    @property
    def has_suspects(self) -> bool:
        """Whether there are poison candidates, so that batches leave the order of delivery."""
        return bool(self._suspects)

    def put(self, delivery: Delivery) -> None:
        """Add a delivery. Called as bytes arrive, so it must return at once."""
        self.received += 1
        (self._suspects if is_suspect(delivery) else self._deliveries).append(delivery)
        self._stirred.set()

    def stir(self) -> None:
        """Wake the caller of `batch`, which may have to stop."""
        self._stirred.set()

    async def batch(self, size: int, wait: float, patience: float) -> list[Delivery]:
        """The next deliveries, at most `size`.

        Waits up to `patience` seconds for the first one. If there are more than a few by then, the rate is high:
        waits for more, up to `wait` seconds in all. Empty if there is none, or if `stir` was called.
        """
        self._stirred.clear()
        if not self:
            try:
                async with asyncio.timeout(patience):
                    await self._stirred.wait()
            except TimeoutError:
                return []
        if self._suspects and (self._is_suspects_turn or not self._deliveries):
            self._is_suspects_turn = False
            return [self._suspects.pop(random.randrange(len(self._suspects)))]  # noqa: S311  # not for secrets
        deadline = asyncio.get_running_loop().time() + wait
        while FEW < (before := len(self._deliveries)) < size and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(DRY_AFTER)
            if len(self._deliveries) == before:
                break
        self._is_suspects_turn = True
        return [self._deliveries.popleft() for _ in range(min(size, len(self._deliveries)))]
