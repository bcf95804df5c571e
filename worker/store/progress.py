"""How far each worker has come with each queue, as it says in the database."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from uuid import UUID

import structlog
from sqlalchemy import BigInteger, ColumnElement, delete, insert, literal_column, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.watermark import Own, Phase, Progress, of_this_time
from worker.store.bulk import clock_of
from worker.store.database import Database
from worker.store.errors import one_line_error
from worker.store.tables import consumers

_log = structlog.get_logger()

FORGOTTEN_AFTER = 600_000
"""Milliseconds without a sign of a worker after which its rows are deleted."""
TIMEOUT = 4
"""Seconds that an answer may take."""


class ProgressStore:
    """Says how far a worker has come, and reads how far all have."""

    def __init__(self, database: Database, prefix: str) -> None:
        self._database = database
        self._prefix = prefix
        self._is_logged = False

    async def renew(self, worker_id: UUID, own: Sequence[Own]) -> tuple[int, Sequence[Progress]] | None:
        """The database's clock and the rows of all workers, this one's included; None if it does not answer."""
        try:
            return await self._database.run_with_timeout(self._renew(worker_id, own), TIMEOUT)
        except Exception as error:  # timeouts wait  # noqa: BLE001
            if not self._database.is_retryable(error) and not self._is_logged:
                self._is_logged = True
                _log.error(
                    "workers cannot say how far they are, nothing is timed out", error=one_line_error(error)
                )
            return None

    async def leave(self, worker_id: UUID) -> None:
        """Say that a worker consumes nothing any more, after its connection to the broker is closed."""
        with suppress(Exception):  # it counts as lost soon
            await self._database.run_with_timeout(self._leave(worker_id), TIMEOUT)

    async def _renew(self, worker_id: UUID, own: Sequence[Own]) -> tuple[int, Sequence[Progress]]:
        column = consumers.c
        async with self._database.write(is_counted=False) as connection:
            await self._spare_the_disk(connection)
            clock = await _read_clock(connection)
            now = asyncio.get_running_loop().time()  # not before: an age that is too low would claim too much
            for queue, phase, settled_at, processed_until in own:
                values = {
                    "phase": phase.value,
                    "seen_at": clock,
                    "settled_until": clock - ceil(1_000 * (now - settled_at)) - 1,
                    # One of a time to come is from before the clock was set back.
                    "processed_until": processed_until if processed_until <= clock else 0,
                }
                known = await connection.execute(
                    update(consumers).where(column.worker_id == worker_id, column.queue == queue).values(values)
                )
                if not known.rowcount:
                    await connection.execute(
                        insert(consumers).values(
                            worker_id=worker_id, queue=queue, topology_prefix=self._prefix, **values
                        )
                    )
                    await connection.execute(delete(consumers).where(column.seen_at < clock - FORGOTTEN_AFTER))
            # With the clock in the same statement, which reads it after it has begun to see the rows.
            query = select(*(column[name] for name in Progress._fields), _clock(connection))
            found = (await connection.execute(query.where(column.topology_prefix == self._prefix))).all()
            rows = [Progress(*row[:-1])._replace(phase=Phase(row.phase)) for row in found]
            clock = max((row[-1] for row in found), default=clock)
            present = of_this_time(rows, clock)
            if len(present) < len(rows):
                await self._forget_a_time_to_come(connection, clock)
            return clock, present

    async def _forget_a_time_to_come(self, connection: AsyncConnection, clock: int) -> None:
        """Delete what was said before the clock was set back: nobody can tell it apart once the time has come."""
        column = consumers.c
        is_to_come = (column.topology_prefix == self._prefix) & (column.seen_at > clock)
        key = column.worker_id, column.queue
        # Rows that are locked are being written anew.
        found = select(*key).where(is_to_come).with_for_update(skip_locked=True)
        await connection.execute(delete(consumers).where(tuple_(*key).in_(found)))

    async def _leave(self, worker_id: UUID) -> None:
        async with self._database.write(is_counted=False) as connection:
            values = {"phase": Phase.GONE.value, "seen_at": await _read_clock(connection)}
            await connection.execute(update(consumers).where(consumers.c.worker_id == worker_id).values(values))

    async def _spare_the_disk(self, connection: AsyncConnection) -> None:
        if not self._database.is_sqlite:  # what a crash of the server loses is written again
            await connection.execute(text("SET LOCAL synchronous_commit = off"))


def _clock(connection: AsyncConnection) -> ColumnElement[int]:
    return literal_column(clock_of(connection.dialect.name), BigInteger)


async def _read_clock(connection: AsyncConnection) -> int:
    return (await connection.execute(select(_clock(connection)))).scalar_one()
