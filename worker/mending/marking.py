"""Where dead letters stand, changed with a note of who did it and why."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from worker.batches import waiting_out_failures
from worker.mending.pages import PATIENCE
from worker.outcomes import Action, Status
from worker.store import letters
from worker.store.database import Database


async def mark(
    database: Database, rows: Sequence[Row[Any]], status: Status, action: Action, outcome: str, actor: str
) -> list[int]:
    """Change where those stand that are still as they were read, in one transaction; returns their ids."""

    async def once() -> list[int]:
        async with database.write() as connection:
            return await letters.mark(connection, rows, status, action, outcome, actor, datetime.now(UTC))

    return await waiting_out_failures(database, PATIENCE, once)
