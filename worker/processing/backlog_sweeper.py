"""What was left parked though its device operation is registered: found now and then, and taken up.

Whoever registers a device operation takes up what waits for it, before the message is acknowledged or answered. If
that is more than one transaction takes up, and the process is killed in between, the message goes on with it where
it comes again; that of a sender over HTTP, or of a file, may not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from worker.config.reporters import Trust
from worker.model.outcomes import Tally
from worker.processing.batches import write_transactions
from worker.processing.splitting import release_backlog
from worker.store import dead_letters
from worker.store.database import Database

LOOKED_AT = 10_000
"""Parked reports that are looked at in one query."""
PAUSE = 0.5
"""Seconds between two queries, so that however many reports are parked, looking takes a small part of the time."""
INTERVAL = 60
"""Seconds between two rounds."""

_log = structlog.get_logger()


async def sweep_periodically(
    database: Database, trust: Trust | None, stop: asyncio.Event, note: Callable[[Tally], object]
) -> None:
    """Look through all parked reports, again and again until `stop` is set; `note` gets what was taken up."""
    while not stop.is_set():
        try:
            await sweep(database, trust, note, lambda: _pause(stop, PAUSE))
        except Exception as error:  # the next round tries again, whatever it is  # noqa: BLE001
            if not database.may_pass(error):  # whoever settles batches waits for the database, and says so
                _log.error("a defect", exc_info=error)
        await _pause(stop, INTERVAL)


async def sweep(
    database: Database,
    trust: Trust | None,
    note: Callable[[Tally], object] = id,
    pause: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0),
) -> None:
    """Look through all parked reports once, and take up those whose device operations are registered."""
    last: int | None = 0
    while last is not None:
        async with database.read() as connection:
            last, registered = await dead_letters.parked_and_registered(connection, last, LOOKED_AT)
        if registered:
            tally = await release_backlog(write_transactions(database, trust=trust), registered)
            _log.info("taken up: parked reports of what is registered", **tally.document())
            note(tally)
        await pause()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
