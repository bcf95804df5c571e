"""Deliveries on their way into batches: by size, by time, or early when few came or nothing more comes."""

import asyncio
import random
from collections import deque

from worker.amqp.delivery import Delivery
from worker.amqp.reading import is_suspect

FEW = 50
"""Deliveries up to which a batch does not wait for more: where so few come at once, there is time for them."""
DRY_AFTER = 0.001
"""Seconds without a delivery after which the queue counts as run dry."""


class Buffer:
    """What was delivered on one channel and not yet batched; it dies with the channel.

    A suspect, whose workers keep dying, comes in a batch of its own, after the next batch of others; and which
    suspect comes next is drawn by lot. So what kills a worker takes nobody along for long: of those that were
    delivered with it, each life of a worker settles half, and the broker gives up on the one that is left.
    """

    def __init__(self) -> None:
        self.received = 0
        """Deliveries so far."""
        self._deliveries: deque[Delivery] = deque()
        self._suspects: list[Delivery] = []
        self._is_suspects_turn = False
        self._stirred = asyncio.Event()

    def __len__(self) -> int:
        return len(self._deliveries) + len(self._suspects)

    @property
    def has_suspects(self) -> bool:
        """Whether suspects wait, so that batches leave out of their turn."""
        return bool(self._suspects)

    def put(self, delivery: Delivery) -> None:
        """Take a delivery in; this is called as bytes arrive, and must do no more than that."""
        self.received += 1
        (self._suspects if is_suspect(delivery) else self._deliveries).append(delivery)
        self._stirred.set()

    def stir(self) -> None:
        """Wake whoever waits for a batch, so that it looks whether it should still wait."""
        self._stirred.set()

    async def batch(self, size: int, wait: float, patience: float) -> list[Delivery]:
        """The next deliveries, `size` at most.

        Waits `patience` seconds for the first one. If there are more than a few by then, they come fast, and it is
        worth it to wait for more: while they do, `wait` seconds in all.
        Empty if nothing came, or if `stir` was called.
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
            return [self._suspects.pop(random.randrange(len(self._suspects)))]  # noqa: S311  # a lot, not a secret
        deadline = asyncio.get_running_loop().time() + wait
        while FEW < (before := len(self._deliveries)) < size and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(DRY_AFTER)
            if len(self._deliveries) == before:
                break
        self._is_suspects_turn = True
        return [self._deliveries.popleft() for _ in range(min(size, len(self._deliveries)))]
