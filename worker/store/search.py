"""What an id, or the beginning of one, is of."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.id_range import IdRange
from worker.store.tables import dead_letters, device_operations, operations

_LARGEST_ID = 2**63 - 1


class Found(NamedTuple):
    """Ids of operations, of devices and of dead letters."""

    operations: Sequence[UUID]
    devices: Sequence[UUID]
    dead_letters: Sequence[int]


async def find(
    connection: AsyncConnection,
    wanted: IdRange | None,
    number: int | None,
    limit: int,
    *,
    devices: bool,
    dead_letters: bool,
) -> Found:
    """At most `limit` of each kind: operations and devices by their id, dead letters by their number.

    `devices` and `dead_letters` are whether to look for those.
    """
    of_operations = await ids_in(connection, operations.c.id, wanted, limit)
    of_devices = await ids_in(connection, device_operations.c.device_id, wanted, limit) if devices else []
    of_dead_letters = await _dead_letter(connection, number) if dead_letters else []
    return Found(of_operations, of_devices, of_dead_letters)


async def ids_in(
    connection: AsyncConnection, column: ColumnElement[UUID], wanted: IdRange | None, limit: int
) -> Sequence[UUID]:
    """The first ids in a range, in order."""
    if wanted is None:
        return []
    query = select(column).where(column.between(wanted.first, wanted.last)).distinct().order_by(column)
    return (await connection.execute(query.limit(limit))).scalars().all()


async def _dead_letter(connection: AsyncConnection, number: int | None) -> Sequence[int]:
    if number is None or number > _LARGEST_ID:
        return []
    return (await connection.scalars(select(dead_letters.c.id).where(dead_letters.c.id == number))).all()
