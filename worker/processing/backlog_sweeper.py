"""Periodic search for parked reports whose device operation is registered.

A registration releases the parked reports of its device operation before the message is acknowledged. If that
takes several transactions and the process is killed in between, a redelivered message continues; a message that
came over HTTP or from a file may not be sent again, and its parked reports are found here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from worker.config.reporters import Reporters
from worker.model.outcomes import Tally
from worker.processing.batches import write_transactions
from worker.processing.splitting import release_backlog
from worker.store import dead_letters
from worker.store.database import Database

EXAMINED = 10_000
"""Parked reports that one query examines."""
PAUSE = 0.5
"""Seconds between two queries, which bound the load of a large backlog."""
INTERVAL = 60
"""Seconds between two sweeps."""

_log = structlog.get_logger()


async def sweep_periodically(
    database: Database, reporters: Reporters | None, stop: asyncio.Event, note: Callable[[Tally], object]
) -> None:
    """Sweep every `INTERVAL` until `stop` is set; `note` receives the tally of released reports."""
    while not stop.is_set():
        try:
            await sweep(database, reporters, note, lambda: _pause(stop, PAUSE))
        except Exception as error:  # the next sweep tries again  # noqa: BLE001
            if not database.is_retryable(error):  # the processing of batches logs an unavailable database
                _log.error("unhandled error", exc_info=error)
        await _pause(stop, INTERVAL)


async def sweep(
    database: Database,
    reporters: Reporters | None,
    note: Callable[[Tally], object] = id,
    pause: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0),
) -> None:
    """Examine all parked reports once, and release those whose device operations are registered."""
    last: int | None = 0
    while last is not None:
        async with database.read() as connection:
            last, registered = await dead_letters.parked_and_registered(connection, last, EXAMINED)
        if registered:
            tally = await release_backlog(write_transactions(database, reporters=reporters), registered)
            _log.info("released parked reports", **tally.document())
            note(tally)
        await pause()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
