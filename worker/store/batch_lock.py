"""An advisory lock of PostgreSQL by which workers of one queue commit their batches one after another."""

import time
from collections.abc import Awaitable, Callable
from zlib import crc32

from worker.store.driver import asyncpg

TIMEOUT = 5
"""Maximum seconds to wait for the lock, as a stopped process may hold it."""
AVOIDANCE = 60
"""Seconds without the lock after a wait that timed out."""
_CLASS = 0x646F7074
"""The first key of these advisory locks."""


class BatchLock:
    """A transaction-level advisory lock, one for each name, acquired as a batch's transaction begins.

    Consecutive batches of a queue contain reports about the same device operations. Without this lock, their
    transactions wait for each other's row locks while they hold others, which costs more than to wait before the
    first row lock. Correctness does not depend on it.
    """

    def __init__(self, name: str, timeout: float = TIMEOUT) -> None:
        self._key = crc32(name.encode()) - 2**31  # a signed number
        self._timeout = timeout
        self._avoided_until = 0.0
        """By the monotonic clock."""
        self.waited = 0.0
        """Seconds that transactions have waited for it."""

    async def begin(self, execute: Callable[[str], Awaitable[str]], begin: str) -> str:
        """Begin a transaction with the statement `begin`, and acquire the lock in the same request."""
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
