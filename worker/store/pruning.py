"""Removing what is past its time, some rows at a time. What another transaction holds is left for a later time."""

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
"""States of an operation that does not go on by itself."""


class Removed(NamedTuple, Generic[Id]):
    """What one step of a walk through a table's ids has removed."""

    last: Id | None
    """The last id that was looked at, None when there are no more."""
    rows: int


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


async def shorten_histories(connection: AsyncConnection, after: int, before: datetime, size: int) -> Removed[int]:
    """Remove what was done before a time with the next `size` dead letters with ids beyond `after`.

    How each was received stays, and so do the latest entries, which are shown.
    """
    ids = await _next(connection, dead_letters.c.id, after, size)
    entry = dead_letter_history.c
    may_go = (entry.at < before) & (entry.action != Action.RECEIVED.value)
    rows = await _shorten(connection, entry.id, entry.dead_letter_id, ids, documents.LATEST_ENTRIES, may_go)
    return Removed(max(ids, default=None), rows)


async def remove_activity(connection: AsyncConnection, after: UUID, before: datetime, size: int) -> Removed[UUID]:
    """Remove the reports recorded before a time of the next `size` device operations with ids beyond `after`.

    Only of those that are settled and have not changed since that time. What was recorded before schema 0006 goes
    by what its sender said, unless that is still to come.
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
    """Remove states that the next `size` operations with ids beyond `after` had before a time, not the latest."""
    ids = await _next(connection, operations.c.id, after, size)
    entry = operation_activity.c
    may_go = entry.created_at < before
    rows = await _shorten(connection, entry.id, entry.operation_id, ids, documents.LATEST_ACTIVITY, may_go)
    return Removed(max(ids, default=None), rows)


async def remove_announcements(
    connection: AsyncConnection, after: UUID, before: datetime, size: int
) -> Removed[UUID]:
    """Forget which announcements came of the next `size` operations with ids beyond `after`.

    Only of those that are over and have not changed since a time; an announcement is a change.
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
    """Remove of owners' entries what may go, but for the latest; returns how many that were."""
    numbered = select(id_, owner, func.row_number().over(partition_by=owner, order_by=id_.desc()).label("number"))
    found = numbered.where(owner.in_(owners)).subquery().c
    oldest = select(found[owner.name], found.id).where(found.number == number)
    rows = 0
    for one, kept_from in await connection.execute(oldest):
        removed = await connection.execute(delete(id_.table).where(owner == one, id_ < kept_from, may_go))
        rows += removed.rowcount
    return rows
