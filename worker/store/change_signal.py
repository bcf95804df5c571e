"""Says when changes may have been committed: LISTEN on PostgreSQL, the clock on SQLite and behind some poolers."""

import asyncio
from contextlib import suppress

import structlog

from worker.store.bulk import CHANGES_CHANNEL
from worker.store.database import Database
from worker.store.errors import is_database_error, one_line_error
from worker.store.notify import NotListening, listen

POLL_INTERVAL = 0.1
"""Seconds between two signals where nothing notifies."""
INTERVAL = 1
"""Maximum seconds between two signals otherwise."""
LISTEN_RETRY = 300
"""Seconds of polling behind a pooler before LISTEN is tried again: the pooler may have another mode by then."""
RETRY = 1
"""Seconds between two attempts to listen while the database is unavailable."""

_log = structlog.get_logger()


class ChangeSignal:
    """Ends `wait` when changes may have been committed, at once while `run` is listening."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._woken = asyncio.Event()
        self._is_notified = self._is_lost = self._is_polling = False

    async def wait(self) -> bool:
        """Wait until there may be something to read; returns whether a commit said so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(INTERVAL if self._is_notified else POLL_INTERVAL):
                await self._woken.wait()
        is_notified = self._woken.is_set()
        self._woken.clear()
        return is_notified

    async def run(self) -> None:
        """Listen until cancelled; does nothing on SQLite."""
        while not self._database.is_sqlite:
            pause: float = RETRY
            try:
                await listen(self._database, CHANGES_CHANNEL, lambda _: self._woken.set(), self._on_ready)
            except NotListening as error:
                if not self._is_polling:
                    _log.warning("LISTEN is not supported, polling", error=str(error), interval=POLL_INTERVAL)
                self._is_polling, self._is_lost = True, False
                pause = LISTEN_RETRY
            except Exception as error:  # it goes on by the clock  # noqa: BLE001
                if not is_database_error(error):
                    _log.error("unhandled error", exc_info=error)
                if not self._is_lost:
                    _log.warning("LISTEN connection lost, polling until it returns", error=one_line_error(error))
                self._is_lost = True
            self._is_notified = False
            await asyncio.sleep(pause)

    def _on_ready(self) -> None:
        if self._is_lost or self._is_polling:
            _log.info("LISTEN connection restored")
        self._is_lost = self._is_polling = False
        self._is_notified = True
        self._woken.set()  # commits before LISTEN were not notified
