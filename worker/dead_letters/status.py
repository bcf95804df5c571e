"""Changes the status of dead letters, with an entry in their history."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from worker.dead_letters.paging import RETRY_TIMEOUT
from worker.model.outcomes import Action, Status
from worker.processing.batches import retry_transient
from worker.store import dead_letters
from worker.store.database import Database


async def set_status(
    database: Database,
    rows: Sequence[Row[Any]],
    status: Status,
    action: Action,
    outcome: str,
    actor: str,
    *,
    is_done: bool = False,
) -> list[int]:
    """Set the status of the dead letters that have not changed since they were read; returns their ids.

    In one transaction, retried on transient failures. `is_done` is as for `store.dead_letters.set_status`.
    """

    async def once() -> list[int]:
        async with database.write() as connection:
            now = datetime.now(UTC)
            return await dead_letters.set_status(
                connection, rows, status, action, outcome, actor, now, is_done=is_done
            )

    return await retry_transient(database, RETRY_TIMEOUT, once)
