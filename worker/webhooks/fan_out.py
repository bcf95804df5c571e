"""Reads the log of changes on, and writes what is owed to each webhook: one worker at a time, any of them."""

import asyncio
import time
from collections.abc import Callable

from worker.store import webhook_deliveries
from worker.store.change_reader import PORTION, ChangeReader
from worker.store.database import Database
from worker.store.webhooks import spare_the_disk

GATHERED = 0.25
"""Seconds between two portions, in which commits gather: each takes time from batches, whatever its size."""


class FanOut:
    """One cursor for all webhooks; what each takes is a row of its own from then on."""

    def __init__(self, database: Database, reader: ChangeReader, on_owed: Callable[[], object]) -> None:
        self._database = database
        self._reader = reader
        self._on_owed = on_owed
        self._read = 0
        """The position up to which everything is owed, as far as this worker has read."""
        self._due_at = 0.0

    async def portion(self) -> bool:
        """Owe the next changes; returns whether there may be more at once. Raises the database's errors."""
        if time.monotonic() < self._due_at:
            return False
        portion = await self._reader.next(self._read)
        if portion is None:
            return False
        # Below what was owed, if the database has lost its last transactions in a failover.
        self._read, found = portion
        if not found:
            return False
        last = found[-1].position
        async with self._database.write(is_counted=False) as connection:
            await spare_the_disk(connection)
            owed = await webhook_deliveries.owe(connection, self._read, last)
        self._read = last
        if owed:
            self._on_owed()
        if len(found) == PORTION:
            return True
        self._due_at = time.monotonic() + GATHERED
        return False

    async def wait(self) -> None:
        """Wait until there may be something to read."""
        if (early := self._due_at - time.monotonic()) > 0:
            await asyncio.sleep(early)
        else:
            await self._reader.wait()

    async def release(self) -> None:
        """Let another worker go on at once."""
        await self._reader.release(self._read)

    def close(self) -> None:
        """Hold the cursor no longer than it is held now."""
        self._reader.close()
