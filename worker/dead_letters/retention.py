"""Retention: deletes old rows in small transactions with pauses, so that workers are not blocked."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.dead_letters.paging import RETRY_TIMEOUT, OnProgress
from worker.processing.batches import retry_transient
from worker.store import pruning
from worker.store.database import Database
from worker.store.pruning import Removed

SIZE = 500
"""Maximum number of rows in one transaction."""
PAUSE = 0.01
"""Seconds between two transactions, so that other writers get a turn on SQLite."""

Id = TypeVar("Id")
Step = Callable[[AsyncConnection], Awaitable[int]]
Walk = Callable[[AsyncConnection, Id], Awaitable[Removed[Id]]]

_HISTORIES = {
    "activity": pruning.remove_activity,
    "operation_activity": pruning.remove_operation_activity,
    "announcements": pruning.remove_announcements,
}
PRUNED = ("dead_letters", "bodies", "dead_letter_history", *_HISTORIES)
"""Keys of the result of `Retention.prune`."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Retention periods; None keeps rows for ever."""

    closed: timedelta | None = None
    """Resolved and discarded dead letters."""
    bodies: timedelta | None = None
    """Bodies of resolved and discarded dead letters."""
    activity: timedelta | None = None
    """Reports about settled device operations, former states of operations, and announcements of finished
    operations. Whatever documents show is kept."""

    async def prune(self, database: Database, progress: OnProgress = id) -> dict[str, int]:
        """Delete what is older than its period; returns the number of rows (of `bodies`: emptied) by table."""
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


async def _in_steps(database: Database, step: Step, progress: OnProgress) -> int:
    async def once() -> int:
        async with database.write() as connection:
            return await step(connection)

    total = 0
    while done := await retry_transient(database, RETRY_TIMEOUT, once):
        total += done
        progress(done)
        await asyncio.sleep(PAUSE)
    return total


async def _walking(database: Database, step: Walk[Id], after: Id, progress: OnProgress) -> int:
    async def once() -> Removed[Id]:
        async with database.write() as connection:
            return await step(connection, after)

    total = 0
    while True:
        last, done = await retry_transient(database, RETRY_TIMEOUT, once)
        if last is None:
            return total
        after = last
        total += done
        progress(done)
        await asyncio.sleep(PAUSE)
