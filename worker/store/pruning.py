"""Removing what is past its time, some rows at a time. What another transaction holds is left for a later time."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import SETTLED
from worker.outcomes import Status
from worker.store.tables import activity, dead_letter_history, dead_letters, device_operations


async def remove_closed(connection: AsyncConnection, before: datetime, size: int) -> int:
    """Remove dead letters, with their histories, that were resolved or discarded before a time."""
    ids = await _closed_before(connection, before, size)
    await connection.execute(delete(dead_letter_history).where(dead_letter_history.c.dead_letter_id.in_(ids)))
    await connection.execute(delete(dead_letters).where(dead_letters.c.id.in_(ids)))
    return len(ids)


async def empty_closed(connection: AsyncConnection, before: datetime, size: int, now: datetime) -> int:
    """Empty the bodies of dead letters that were resolved or discarded before a time.

    They give up their identities too: the same message, should it come again, is no duplicate of an empty row.
    """
    ids = await _closed_before(connection, before, size, dead_letters.c.body_removed_at.is_(None))
    if ids:
        emptying = update(dead_letters).where(dead_letters.c.id == bindparam("emptied"))
        values = {"body": b"", "body_removed_at": now, "device_operation_id": None}
        await connection.execute(
            emptying.values(values | {"fingerprint": bindparam("new")}),
            [{"emptied": id_, "new": uuid4()} for id_ in ids],
        )
    return len(ids)


async def _closed_before(
    connection: AsyncConnection, before: datetime, size: int, *conditions: ColumnElement[bool]
) -> Sequence[int]:
    query = (
        select(dead_letters.c.id)
        # As in the partial index, in the statement's text.
        .where(dead_letters.c.status != bindparam("status", Status.OPEN.value, literal_execute=True))
        .where(dead_letters.c.resolved_at < before, *conditions)
        .order_by(dead_letters.c.resolved_at)
        .limit(size)
        .with_for_update(skip_locked=True)
    )
    return (await connection.execute(query)).scalars().all()


async def remove_activity(
    connection: AsyncConnection, after: UUID, before: datetime, size: int
) -> tuple[UUID | None, int]:
    """Remove history before a time of the next `size` device operations with ids beyond `after`.

    Only of those that are settled and have not changed since that time. Returns the last id looked at, None
    when there are no more, and how many entries were removed.
    """
    column = device_operations.c
    ids = select(column.id).where(column.id > after).order_by(column.id).limit(size)
    looked_at = (await connection.execute(ids)).scalars().all()
    if not looked_at:
        return None, 0
    old = await connection.execute(
        select(column.id)
        .where(column.id.in_(looked_at), column.state.in_(SETTLED), column.updated_at < before)
        .order_by(column.id)
        .with_for_update(skip_locked=True)
    )
    removed = await connection.execute(
        delete(activity).where(
            activity.c.device_operation_id.in_(old.scalars().all()), activity.c.created_at < before
        )
    )
    return looked_at[-1], removed.rowcount
