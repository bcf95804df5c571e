"""How many device operations settled in each minute: read, and thinned.

`statements.COUNT` counts them in the row of the operation, and `batch.write` keeps the minutes that are over, an
hour in a row of `operation_minutes`.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, delete, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters
from worker.model import minutes
from worker.model.minutes import HOUR, MILLISECONDS, Settled
from worker.model.pace import Course
from worker.model.timing import milliseconds
from worker.store.bulk import clock_of
from worker.store.pruning import Removed
from worker.store.tables import operation_minutes, operations

KEPT_BY_THE_MINUTE = timedelta(days=1)
"""Older hours are thinned to one number each."""
KEPT = timedelta(days=31)
"""Older hours are removed."""
_HOUR = HOUR * MILLISECONDS


async def course_of(connection: AsyncConnection, operation_id: UUID) -> Course | None:
    """How an operation has gone in the time for which minutes are kept; None if it is unknown."""
    return (await courses_of(connection, [operation_id])).get(operation_id)


async def courses_of(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Course]:
    """The same of several operations, those that exist."""
    column = operations.c
    names = "id", "minute", "minute_settled", "moved_at", "expected_device_count", *Counters._fields
    clock = literal_column(clock_of(connection.dialect.name), BigInteger).label("clock")
    rows = (
        await connection.execute(select(*(column[name] for name in names), clock).where(column.id.in_(ids)))
    ).all()
    if not rows:
        return {}
    hour = operation_minutes.c
    since = rows[0].clock // _HOUR - KEPT // timedelta(hours=1)
    query = select(hour.operation_id, hour.hour, hour.settled).order_by(hour.operation_id, hour.hour)
    over: defaultdict[UUID, list[tuple[int, str]]] = defaultdict(list)
    for id_, *each in await connection.execute(query.where(hour.operation_id.in_(ids), hour.hour >= since)):
        over[id_].append((each[0], each[1]))
    return {row.id: _course(row, over[row.id]) for row in rows}


def _course(row: Any, over: Iterable[tuple[int, str]]) -> Course:
    present = [Settled(row.minute, row.minute_settled)] if row.minute_settled else []
    counters = Counters(*(getattr(row, name) for name in Counters._fields))
    return Course(counters, row.expected_device_count, [*minutes.read(over), *present], row.moved_at, row.clock)


async def thin(connection: AsyncConnection, after: UUID, now: datetime, size: int) -> Removed[UUID]:
    """Thin and remove old hours of the next `size` operations that have some, after the id `after`.

    Operations that are locked are skipped, since hours are written under their lock.
    """
    column = operation_minutes.c
    thinned_until, removed_until = (milliseconds(now - kept) // _HOUR for kept in (KEPT_BY_THE_MINUTE, KEPT))
    is_old = column.hour < thinned_until
    query = select(column.operation_id).distinct().where(column.operation_id > after, is_old)
    ids = (await connection.scalars(query.order_by(column.operation_id).limit(size))).all()
    locking = select(operations.c.id).where(operations.c.id.in_(ids)).order_by(operations.c.id)
    locked = (await connection.scalars(locking.with_for_update(skip_locked=True))).all()
    are_theirs = column.operation_id.in_(locked)
    gone = await connection.execute(delete(operation_minutes).where(are_theirs, column.hour < removed_until))
    rows = gone.rowcount
    for row in (await connection.execute(select(operation_minutes).where(are_theirs, is_old))).all():
        rows += await _thin(connection, row)
    return Removed(max(ids, default=None), rows)


async def _thin(connection: AsyncConnection, row: Any) -> int:
    """Thin an hour; returns 0 if it is thinned already, else 1."""
    if (settled := minutes.thinned(row.settled)) == row.settled:
        return 0
    column = operation_minutes.c
    is_it = (column.operation_id == row.operation_id) & (column.hour == row.hour)
    await connection.execute(update(operation_minutes).where(is_it).values(settled=settled))
    return 1
