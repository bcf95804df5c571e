"""Deliveries on their way into batches: by size, by time, or early when nothing more comes."""

import asyncio
from collections import deque

from aiormq.abc import DeliveredMessage

DRY_AFTER = 0.001
"""Seconds without a delivery after which the queue counts as run dry, so that a lone report does not wait."""


class Buffer:
    """What was delivered on one channel and not yet batched; it dies with the channel."""

    def __init__(self) -> None:
        self._deliveries: deque[DeliveredMessage] = deque()
        self._stirred = asyncio.Event()

    async def put(self, delivery: DeliveredMessage) -> None:
        """Take a delivery in; this is the channel's callback, which must do no more than that."""
        self._deliveries.append(delivery)
        self._stirred.set()

    def stir(self) -> None:
        """Wake whoever waits for a batch, so that it looks whether it should still wait."""
        self._stirred.set()

    async def batch(self, size: int, wait: float, patience: float) -> list[DeliveredMessage]:
        """The next deliveries, `size` at most.

        Waits `patience` seconds for the first one, then, while more trickle in, `wait` seconds in all.
        Empty if nothing came, or if `stir` was called.
        """
        self._stirred.clear()
        if not self._deliveries:
            try:
                async with asyncio.timeout(patience):
                    await self._stirred.wait()
            except TimeoutError:
                return []
        deadline = asyncio.get_running_loop().time() + wait
        while 0 < (before := len(self._deliveries)) < size and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(DRY_AFTER)
            if len(self._deliveries) == before:
                break
        return [self._deliveries.popleft() for _ in range(min(size, len(self._deliveries)))]
