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
from worker.store import audit, change_log, minutes, pruning
from worker.store.change_page import number_all
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
PRUNED = ("dead_letters", "bodies", "dead_letter_history", *_HISTORIES, "changes", "minutes", "audit_log")
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
    changes: timedelta | None = None
    """Changes that others were told."""
    changes_limit: int = 10**9
    """Number of changes that are kept at most."""
    thins_minutes: bool = False
    """Whether the numbers that settled in each minute are thinned: `store.minutes` has the periods."""
    audit: timedelta | None = None
    """What was done on the web page."""

    async def prune(self, database: Database, progress: OnProgress = id) -> dict[str, int]:
        """Delete what is older than its period; returns the number of rows by table.

        Of `bodies` it is how many were emptied, of `minutes` how many hours were thinned or removed.
        """
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
        if self.changes is not None:
            await number_all(database)
            keep = int(self.changes / timedelta(milliseconds=1))
            step = partial(change_log.remove_read, keep=keep, limit=self.changes_limit, size=SIZE)
            pruned["changes"] = await _in_steps(database, step, progress)
        if self.thins_minutes:
            thin = partial(minutes.thin, now=now, size=SIZE)
            pruned["minutes"] = await _walking(database, thin, UUID(int=0), progress)
        if self.audit is not None:
            step = partial(audit.remove, before=now - self.audit, size=SIZE)
            pruned["audit_log"] = await _in_steps(database, step, progress)
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
