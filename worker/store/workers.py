"""The workers that consume the reports of one prefix, as each announces itself in the database."""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, DateTime, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.sharing import Peer
from worker.store.database import Database
from worker.store.errors import one_line_error
from worker.store.tables import UtcDateTime, workers

_log = structlog.get_logger()

GONE_AFTER = timedelta(seconds=5)
"""Without an announcement, a worker counts as gone: it died, stands still, or has no database."""
FORGOTTEN_AFTER = timedelta(minutes=1)
SHOWN_EVERY = 20
"""Seconds between two announcements of a worker that shares nothing: only people want to know of it."""
SHARES_NOTHING = 0
"""Partitions of such a worker, as they are stored."""
TIMEOUT = 4
"""Seconds that an announcement may take."""
LOOK_TIMEOUT = 60
"""Seconds that a look may take, on which nothing depends yet."""
LEAVE_TIMEOUT = 1
"""Seconds that taking an announcement back may take."""


class Peers:
    """Announces workers of a prefix, and sees who else does.

    As long as nobody has partitions nothing is shared: workers look whether that is still so, and announce
    themselves from time to time, for people.
    """

    def __init__(self, database: Database, prefix: str) -> None:
        self._database = database
        self._prefix = prefix
        self._is_announced = False
        self._is_logged = False
        self._shown_at = -math.inf

    async def renew(self, own: Peer, *, is_sharing: bool) -> Sequence[Peer] | None:
        """Announce a worker, and return all, this one included; None if the database does not answer in time."""
        try:
            renewing = self._renew(own, is_sharing=is_sharing)
            return await self._database.run_with_timeout(renewing, TIMEOUT if is_sharing else LOOK_TIMEOUT)
        except Exception as error:  # noqa: BLE001  # nothing but speed depends on it
            if own.partitions > 1 and not self._database.is_retryable(error) and not self._is_logged:
                self._is_logged = True
                _log.warning("workers cannot be announced, sharing with none", error=one_line_error(error))
            return None

    async def leave(self, own: UUID) -> None:
        """Take a worker's announcement back, if the database answers at once; else it counts as gone soon."""
        if not self._is_announced:
            return
        self._is_announced = False
        leaving = asyncio.create_task(self._leave(own))
        await asyncio.wait({leaving}, timeout=LEAVE_TIMEOUT)
        leaving.cancel()

    async def _renew(self, own: Peer, *, is_sharing: bool) -> Sequence[Peer]:
        if not is_sharing:
            async with self._database.read() as connection:
                shares_nothing = not await self._seen(connection)
            if shares_nothing:
                await self._show(own.id)
                return [own]
        self._is_announced = True
        async with self._database.write(is_counted=False) as connection:
            await self._put(connection, own.id, own.partitions)
            return await self._seen(connection)

    async def _show(self, own: UUID) -> None:
        """Announce a worker that shares nothing, if it is time; a failure matters to nobody."""
        if (now := time.monotonic()) - self._shown_at < SHOWN_EVERY:
            return
        self._shown_at, self._is_announced = now, True
        with suppress(Exception):
            async with self._database.write(is_counted=False) as connection:
                await self._put(connection, own, SHARES_NOTHING)

    async def _put(self, connection: AsyncConnection, own: UUID, partitions: int) -> None:
        now = self._now()
        known = await connection.execute(
            update(workers).where(workers.c.id == own).values(partitions=partitions, seen_at=now)
        )
        if not known.rowcount:
            values = {"topology_prefix": self._prefix, "partitions": partitions, "seen_at": now}
            await connection.execute(insert(workers).values(id=own, **values))
            await connection.execute(delete(workers).where(workers.c.seen_at < self._now(FORGOTTEN_AFTER)))

    async def _seen(self, connection: AsyncConnection) -> Sequence[Peer]:
        query = select(workers.c.id, workers.c.partitions).where(
            workers.c.topology_prefix == self._prefix,
            workers.c.partitions != SHARES_NOTHING,
            # One of a time to come may have died before the clock was set back.
            workers.c.seen_at.between(self._now(GONE_AFTER), self._now(-GONE_AFTER)),
        )
        return [Peer(row.id, row.partitions) for row in await connection.execute(query)]

    async def _leave(self, own: UUID) -> None:
        with suppress(Exception):
            async with self._database.write(is_counted=False) as connection:
                await connection.execute(delete(workers).where(workers.c.id == own))

    def _now(self, ago: timedelta = timedelta()) -> ColumnElement[datetime]:
        """The server's clock, some time ago; that of this machine for SQLite, whose processes share it."""
        if self._database.is_sqlite:
            return literal(datetime.now(UTC) - ago, UtcDateTime)
        return func.clock_timestamp(type_=DateTime(timezone=True)) - ago
