"""What is kept for how long. Pruning goes in small transactions with pauses, so that no worker waits for it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.batches import waiting_out_failures
from worker.mending.pages import PATIENCE, Progress
from worker.store import pruning
from worker.store.database import Database

SIZE = 500
"""Rows in one transaction, at most."""
PAUSE = 0.01
"""Seconds between two transactions, so that others get their turn where only one can write."""

Step = Callable[[AsyncConnection], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long what is kept; None for ever."""

    closed: timedelta | None = None
    """Resolved and discarded dead letters."""
    bodies: timedelta | None = None
    """Their bodies."""
    activity: timedelta | None = None
    """The history of settled device operations."""

    async def prune(self, database: Database, progress: Progress = id) -> dict[str, int]:
        """Remove what is past its time; returns how many dead letters, bodies and history entries that were."""
        now = datetime.now(UTC)
        pruned = dict.fromkeys(("dead_letters", "bodies", "activity"), 0)
        if self.closed is not None:
            step = partial(pruning.remove_closed, before=now - self.closed, size=SIZE)
            pruned["dead_letters"] = await _in_steps(database, step, progress)
        if self.bodies is not None:
            step = partial(pruning.empty_closed, before=now - self.bodies, size=SIZE, now=now)
            pruned["bodies"] = await _in_steps(database, step, progress)
        if self.activity is not None:
            pruned["activity"] = await _prune_activity(database, now - self.activity, progress)
        return pruned


async def _in_steps(database: Database, step: Step, progress: Progress) -> int:
    async def once() -> int:
        async with database.write() as connection:
            return await step(connection)

    total = 0
    while done := await waiting_out_failures(database, PATIENCE, once):
        total += done
        progress(done)
        await asyncio.sleep(PAUSE)
    return total


async def _prune_activity(database: Database, before: datetime, progress: Progress) -> int:
    async def once() -> tuple[UUID | None, int]:
        async with database.write() as connection:
            return await pruning.remove_activity(connection, after, before, SIZE)

    total = 0
    after = UUID(int=0)
    while True:
        last, done = await waiting_out_failures(database, PATIENCE, once)
        if last is None:
            return total
        after = last
        total += done
        progress(done)
        await asyncio.sleep(PAUSE)
