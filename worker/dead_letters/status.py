"""Where dead letters stand, changed with a note of who did it and why."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from worker.dead_letters.paging import PATIENCE
from worker.model.outcomes import Action, Status
from worker.processing.batches import retry_transient
from worker.store import dead_letters
from worker.store.database import Database


async def mark(
    database: Database,
    rows: Sequence[Row[Any]],
    status: Status,
    action: Action,
    outcome: str,
    actor: str,
    *,
    is_done: bool = False,
) -> list[int]:
    """Change where those stand that are still as they were read, in one transaction; returns their ids.

    `is_done` is as for `letters.mark`.
    """

    async def once() -> list[int]:
        async with database.write() as connection:
            now = datetime.now(UTC)
            return await dead_letters.mark(connection, rows, status, action, outcome, actor, now, is_done=is_done)

    return await retry_transient(database, PATIENCE, once)
