"""Deletes old rows, a limited number per transaction; rows locked by other transactions are skipped."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import Column, ColumnElement, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import SETTLED, OperationState
from worker.model.outcomes import Action, Status
from worker.store import documents
from worker.store.tables import (
    activity,
    announcements,
    dead_letter_history,
    dead_letters,
    device_operations,
    operation_activity,
    operations,
)

Id = TypeVar("Id")

OVER = OperationState.COMPLETED, OperationState.FAILED
"""Final states of an operation."""


class Removed(NamedTuple, Generic[Id]):
    """Result of one step through a table in the order of its ids."""

    last: Id | None
    """The last examined id, None at the end."""
    rows: int


async def remove_closed(connection: AsyncConnection, before: datetime, size: int) -> int:
    """Delete up to `size` dead letters closed before a time, with their histories; returns their number."""
    ids = await _closed_before(connection, before, size)
    await connection.execute(delete(dead_letter_history).where(dead_letter_history.c.dead_letter_id.in_(ids)))
    await connection.execute(delete(dead_letters).where(dead_letters.c.id.in_(ids)))
    return len(ids)


async def empty_closed(connection: AsyncConnection, before: datetime, size: int, now: datetime) -> int:
    """Remove the bodies of up to `size` dead letters closed before a time; returns their number.

    Their fingerprints are replaced, so that the same message is not a duplicate of an empty row.
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
        # A literal in the statement's text, so that the partial index can be used.
        .where(dead_letters.c.status != bindparam("status", Status.OPEN.value, literal_execute=True))
        .where(dead_letters.c.resolved_at < before, *conditions)
        .order_by(dead_letters.c.resolved_at)
        .limit(size)
        .with_for_update(skip_locked=True)
    )
    return (await connection.execute(query)).scalars().all()


async def shorten_histories(connection: AsyncConnection, after: int, before: datetime, size: int) -> Removed[int]:
    """Delete history entries before a time of the next `size` dead letters after the id `after`.

    The receipt and the `LATEST_ENTRIES` latest entries, which documents show, are kept.
    """
    ids = await _next(connection, dead_letters.c.id, after, size)
    entry = dead_letter_history.c
    may_go = (entry.at < before) & (entry.action != Action.RECEIVED.value)
    rows = await _shorten(connection, entry.id, entry.dead_letter_id, ids, documents.LATEST_ENTRIES, may_go)
    return Removed(max(ids, default=None), rows)


async def remove_activity(connection: AsyncConnection, after: UUID, before: datetime, size: int) -> Removed[UUID]:
    """Delete reports recorded before a time of the next `size` device operations after the id `after`.

    Only of device operations that are settled and unchanged since that time. Reports recorded before schema 0006
    are dated by their sender, unless that time is in the future.
    """
    column = device_operations.c
    ids = await _next(connection, column.id, after, size)
    old = await connection.scalars(
        select(column.id)
        .where(column.id.in_(ids), column.state.in_(SETTLED), column.updated_at < before)
        .order_by(column.id)
        .with_for_update(skip_locked=True)
    )
    said, recorded = activity.c.created_at, activity.c.recorded_at
    removed = await connection.execute(
        delete(activity).where(
            activity.c.device_operation_id.in_(old.all()),
            (recorded < int(before.timestamp()))
            | (recorded.is_(None) & ((said < before) | (said > datetime.now(UTC)))),
        )
    )
    return Removed(max(ids, default=None), removed.rowcount)


async def remove_operation_activity(
    connection: AsyncConnection, after: UUID, before: datetime, size: int
) -> Removed[UUID]:
    """Delete states before a time of the next `size` operations after the id `after`, not the latest ones."""
    ids = await _next(connection, operations.c.id, after, size)
    entry = operation_activity.c
    may_go = entry.created_at < before
    rows = await _shorten(connection, entry.id, entry.operation_id, ids, documents.LATEST_ACTIVITY, may_go)
    return Removed(max(ids, default=None), rows)


async def remove_announcements(
    connection: AsyncConnection, after: UUID, before: datetime, size: int
) -> Removed[UUID]:
    """Delete the announcement ids of the next `size` operations after the id `after`.

    Only of operations that are final and unchanged since a time; an announcement is a change.
    """
    ids = await _next(connection, operations.c.id, after, size)
    column = operations.c
    over = await connection.scalars(
        select(column.id)
        .where(column.id.in_(ids), column.state.in_(OVER), column.updated_at < before)
        .order_by(column.id)
        .with_for_update(skip_locked=True)
    )
    removed = await connection.execute(delete(announcements).where(announcements.c.operation_id.in_(over.all())))
    return Removed(max(ids, default=None), removed.rowcount)


async def _next(connection: AsyncConnection, id_: ColumnElement[Id], after: Id, size: int) -> Sequence[Id]:
    return (await connection.scalars(select(id_).where(id_ > after).order_by(id_).limit(size))).all()


async def _shorten(
    connection: AsyncConnection,
    id_: Column[int],
    owner: Column[Id],
    owners: Collection[Id],
    number: int,
    may_go: ColumnElement[bool],
) -> int:
    """Delete entries that match `may_go`, except the `number` latest ones of each owner; returns their number."""
    numbered = select(id_, owner, func.row_number().over(partition_by=owner, order_by=id_.desc()).label("number"))
    found = numbered.where(owner.in_(owners)).subquery().c
    oldest = select(found[owner.name], found.id).where(found.number == number)
    rows = 0
    for one, kept_from in await connection.execute(oldest):
        removed = await connection.execute(delete(id_.table).where(owner == one, id_ < kept_from, may_go))
        rows += removed.rowcount
    return rows
