"""What is kept for how long. Pruning goes in small transactions with pauses, so that no worker waits for it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.dead_letters.paging import PATIENCE, Progress
from worker.processing.batches import retry_transient
from worker.store import pruning
from worker.store.database import Database
from worker.store.pruning import Removed

SIZE = 500
"""Rows in one transaction, at most."""
PAUSE = 0.01
"""Seconds between two transactions, so that others get their turn where only one can write."""

Id = TypeVar("Id")
Step = Callable[[AsyncConnection], Awaitable[int]]
Walk = Callable[[AsyncConnection, Id], Awaitable[Removed[Id]]]

_HISTORIES = {
    "activity": pruning.remove_activity,
    "operation_activity": pruning.remove_operation_activity,
    "announcements": pruning.remove_announcements,
}
PRUNED = ("dead_letters", "bodies", "dead_letter_history", *_HISTORIES)
"""What is counted."""


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long what is kept; None for ever."""

    closed: timedelta | None = None
    """Resolved and discarded dead letters."""
    bodies: timedelta | None = None
    """Their bodies."""
    activity: timedelta | None = None
    """The reports about settled device operations, the states that operations had, and the announcements of those
    that are over. What documents show stays."""

    async def prune(self, database: Database, progress: Progress = id) -> dict[str, int]:
        """Remove what is past its time; returns how many rows that were, of bodies how many were emptied."""
        now = datetime.now(UTC)
        pruned = dict.fromkeys(PRUNED, 0)
        if self.closed is not None:
            step = partial(pruning.remove_closed, before=now - self.closed, size=SIZE)
            pruned["dead_letters"] = await _in_steps(database, step, progress)
            shorten = partial(pruning.shorten_histories, before=now - self.closed, size=SIZE)
            pruned["dead_letter_history"] = await _walking(database, shorten, 0, progress)
        if self.bodies is not None:
            step = partial(pruning.empty_closed, before=now - self.bodies, size=SIZE, now=now)
            pruned["bodies"] = await _in_steps(database, step, progress)
        if self.activity is not None:
            for name, remove in _HISTORIES.items():
                walk = partial(remove, before=now - self.activity, size=SIZE)
                pruned[name] = await _walking(database, walk, UUID(int=0), progress)
        return pruned


async def _in_steps(database: Database, step: Step, progress: Progress) -> int:
    async def once() -> int:
        async with database.write() as connection:
            return await step(connection)

    total = 0
    while done := await retry_transient(database, PATIENCE, once):
        total += done
        progress(done)
        await asyncio.sleep(PAUSE)
    return total


async def _walking(database: Database, step: Walk[Id], after: Id, progress: Progress) -> int:
    async def once() -> Removed[Id]:
        async with database.write() as connection:
            return await step(connection, after)

    total = 0
    while True:
        last, done = await retry_transient(database, PATIENCE, once)
        if last is None:
            return total
        after = last
        total += done
        progress(done)
        await asyncio.sleep(PAUSE)
