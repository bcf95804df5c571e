"""Reports that wait for a registration: one that waits for too long is stale, and somebody should know."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.store import letters
from worker.store.database import Database

INTERVAL = 60
"""Seconds between two looks."""

_log = structlog.get_logger()


async def watch(database: Database, stale_after: float, stop: asyncio.Event, interval: float = INTERVAL) -> None:
    """Log how many parked reports are stale, whenever that changes, until `stop` is set.

    `stale_after` is how many seconds a report may wait.
    """
    known = 0
    while not stop.is_set():
        try:
            async with asyncio.timeout(database.answer_timeout), database.read() as connection:
                parked = await letters.parked(connection, datetime.now(UTC) - timedelta(seconds=stale_after))
        except (SQLAlchemyError, OSError):
            parked = None  # whoever settles batches waits for the database, and says so
        if parked is not None:
            stale = [group for group in parked if group.stale]
            count = sum(group.stale for group in stale)
            if count > known:
                _log.warning(
                    "stale: parked reports wait for a registration",
                    reports=count,
                    operations=len(stale),
                    oldest=min(group.oldest for group in stale).isoformat(),
                    operation_id=str(min(stale, key=lambda group: group.oldest).operation_id),
                )
            elif count == 0 and known:
                _log.info("no parked report is stale any more")
            known = count
        with suppress(TimeoutError):
            async with asyncio.timeout(interval):
                await stop.wait()
