"""What only the database knows, looked at now and then and told from memory, whatever becomes of the database.

That is how many reports wait for a registration, and what the last recount found. A report that waits for too long
is stale, and somebody should know.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.store import dead_letters
from worker.store.database import Database
from worker.store.documents import Backlog
from worker.store.recount import Recount, last_recount

INTERVAL = 60
"""Seconds between two looks, at most."""

_log = structlog.get_logger()


class Standing:
    """How it stood when it was looked at last; `stale_after` is how many seconds a report may wait."""

    def __init__(self, database: Database, stale_after: float) -> None:
        self.parked: Backlog | None = None
        """The reports that wait; None before the first look."""
        self.recount: Recount | None = None
        """None if there was none, or before the first look."""
        self._database = database
        self._stale_after = timedelta(seconds=stale_after)
        self._interval = min(INTERVAL, stale_after)
        self._told = 0
        """The stale reports that the log knows of."""

    async def watch(self, stop: asyncio.Event) -> None:
        """Look until `stop` is set, and log how many parked reports are stale, whenever that changes."""
        while not stop.is_set():
            with suppress(SQLAlchemyError, OSError):  # whoever settles batches waits for the database, and says so
                await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await stop.wait()

    async def _look(self) -> None:
        async with asyncio.timeout(self._database.answer_timeout), self._database.read() as connection:
            stale_before = datetime.now(UTC) - self._stale_after
            self.parked = await dead_letters.backlog(connection, stale_before)
            longest = await dead_letters.parked(connection, stale_before, 1)
            self.recount = await last_recount(connection)
        count = self.parked.stale
        if count > self._told:
            _log.warning(
                "stale: parked reports wait for a registration",
                reports=count,
                operations=self.parked.stale_operations,
                oldest=longest[0].oldest.isoformat(),
                operation_id=str(longest[0].operation_id),
            )
        elif count == 0 and self._told:
            _log.info("no parked report is stale any more")
        self._told = count
