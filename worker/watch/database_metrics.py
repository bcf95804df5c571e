"""Metrics from the database, queried periodically and kept, so that scrapes do not depend on it.

Open dead letters, parked reports, the last recount, changes that are not published. A report that is parked for
too long is stale; that is logged.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.model.outcomes import Reason
from worker.store import change_log, dead_letters, due
from worker.store.database import Database
from worker.store.documents import Backlog
from worker.store.recount import Recount, last_recount

INTERVAL = 60
"""Maximum seconds between two queries."""

_log = structlog.get_logger()


class DatabaseMetrics:
    """The results of the last query.

    `stale_after` is the age in seconds at which a parked report is stale, `relay` the cursor of what is published.
    """

    def __init__(self, database: Database, stale_after: float, relay: str) -> None:
        self.parked: Backlog | None = None
        """The parked reports; None before the first query."""
        self.open: Mapping[Reason, int] | None = None
        """Open dead letters by reason; None before the first query."""
        self.recount: Recount | None = None
        """The last recount; None without one, and before the first query."""
        self.due: int | None = None
        """Device operations that are over and not timed out; None before the first query."""
        self.unpublished: change_log.Outstanding | None = None
        """Changes that are not published; None before the first query."""
        self._database = database
        self._relay = relay
        self._stale_after = timedelta(seconds=stale_after)
        self._interval = min(INTERVAL, stale_after)
        self._logged_stale = 0
        """Number of stale reports in the last log line."""

    async def watch(self, stop: asyncio.Event) -> None:
        """Query until `stop` is set; log the number of stale reports when it rises, and when it is 0 again."""
        while not stop.is_set():
            with suppress(SQLAlchemyError, OSError):  # logged by the database's dependency
                await self._query()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await stop.wait()

    async def _query(self) -> None:
        async with asyncio.timeout(self._database.answer_timeout), self._database.read() as connection:
            stale_before = datetime.now(UTC) - self._stale_after
            self.parked = await dead_letters.backlog(connection, stale_before)
            self.open = await dead_letters.open_by_reason(connection)
            longest = await dead_letters.parked(connection, stale_before, 1)
            self.recount = await last_recount(connection)
            self.unpublished = await change_log.outstanding(connection, self._relay)
            self.due = await due.count_due(connection, (await due.outlook(connection)).clock)
        count = self.parked.stale
        if count > self._logged_stale:
            _log.warning(
                "stale parked reports",
                reports=count,
                operations=self.parked.stale_operations,
                oldest=longest[0].oldest.isoformat(),
                operation_id=str(longest[0].operation_id),
            )
        elif count == 0 and self._logged_stale:
            _log.info("no stale parked reports")
        self._logged_stale = count
