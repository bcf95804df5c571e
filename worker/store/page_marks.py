"""Marks that differ after a commit which the log of changes does not tell of; each costs a look-up in an index."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store.tables import dead_letter_history, dead_letters, device_operations


async def of_dead_letters(connection: AsyncConnection) -> tuple[Any, ...]:
    """A mark of all dead letters: every act on one is an entry of its history."""
    last = [select(func.max(table.c.id)).scalar_subquery() for table in (dead_letters, dead_letter_history)]
    return tuple((await connection.execute(select(*last))).one())


async def of_devices(connection: AsyncConnection, ids: Collection[UUID]) -> Mapping[UUID, tuple[Any, ...]]:
    """Marks of devices: of their device operations, how many there are, and when each was reported last.

    A device that is in no operation has none.
    """
    column = device_operations.c
    query = (
        select(column.device_id, func.count(), func.max(column.updated_at), func.max(column.reported_at))
        .where(column.device_id.in_(ids))
        .group_by(column.device_id)
    )
    return {row[0]: tuple(row[1:]) for row in await connection.execute(query)}
