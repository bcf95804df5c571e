"""The door: transactions of workers that share a queue pass it one after another."""

import time
from collections.abc import Awaitable, Callable
from zlib import crc32

from worker.store.driver import asyncpg

TIMEOUT = 5
"""Maximum seconds to wait at the door: a worker that stands still behind it must not hold up the others."""
AVOIDANCE = 60
"""Seconds for which the door is left aside after that."""
_CLASS = 0x646F7074
"""The class of the advisory locks that are doors."""


class Door:
    """An advisory lock of PostgreSQL, taken at the beginning of each batch's transaction, for one name.

    Batches next to each other in a queue are about the same device operations. Without the door their
    transactions wait for each other's rows amid rows that they hold already, which costs more than waiting before
    the first one. Only speed depends on it.
    """

    def __init__(self, name: str, timeout: float = TIMEOUT) -> None:
        self._key = crc32(name.encode()) - 2**31  # a signed number
        self._timeout = timeout
        self._avoided_until = 0.0
        """By the monotonic clock."""
        self.waited = 0.0
        """Seconds that transactions waited here."""

    async def begin(self, execute: Callable[[str], Awaitable[str]], begin: str) -> str:
        """Begin a transaction, by the statement `begin`, and pass the door in the same request."""
        now = time.monotonic()
        if now < self._avoided_until:
            return await execute(begin)
        try:
            return await execute(
                f"{begin} SET LOCAL lock_timeout = {self._timeout * 1_000:.0f};"
                f" SELECT pg_advisory_xact_lock({_CLASS}, {self._key}); SET LOCAL lock_timeout = 0"
            )
        except asyncpg.LockNotAvailableError:
            self._avoided_until = time.monotonic() + AVOIDANCE
            return await execute(f"ROLLBACK; {begin}")
        finally:
            self.waited += time.monotonic() - now
