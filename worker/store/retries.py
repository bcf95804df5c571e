"""Reads of a retry: the operation that is retried, its device operations, and what waits for the new ones."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Row, and_, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store.bulk import clock_of
from worker.store.device_filter import DeviceFilter
from worker.store.statements.dead_letters import LOCK_PARKED
from worker.store.tables import device_operations, operations

READ_AT_ONCE = 5_000
"""Devices that are held as rows of the database."""


async def query_of(connection: AsyncConnection, operation_id: UUID) -> dict[str, Any] | None:
    """The `operation_device_query` of an operation that exists, {} if it has none; None if there is none."""
    query = select(operations.c.operation_device_query).where(operations.c.id == operation_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else row[0] or {}


async def read_announced(connection: AsyncConnection, operation_id: UUID) -> Row[Any] | None:
    """What announcements have said of an operation, with the database's clock in milliseconds since 1970."""
    column = operations.c
    columns = (
        *(column.operation_type, column.schedule_type, column.schedule_args, column.arguments),
        *(column.timeouts, column.deadline, column.schedule_end, column.abort),
    )
    clock = literal_column(clock_of(connection.dialect.name), BigInteger).label("clock")
    query = select(*columns, clock).where(column.id == operation_id)
    return (await connection.execute(query)).one_or_none()


async def count_devices(connection: AsyncConnection, operation_id: UUID, wanted: DeviceFilter) -> int:
    """The number of an operation's device operations that a filter finds."""
    query = select(func.count()).select_from(device_operations).where(_found_by(operation_id, wanted))
    return (await connection.execute(query)).scalar_one()


async def devices(
    connection: AsyncConnection, operation_id: UUID, wanted: DeviceFilter
) -> AsyncIterator[Sequence[UUID]]:
    """The devices of an operation's device operations that a filter finds, in portions of one snapshot."""
    query = select(device_operations.c.device_id).where(_found_by(operation_id, wanted))
    result = await connection.stream(query.execution_options(yield_per=READ_AT_ONCE))
    async for rows in result.scalars().partitions():
        yield rows


async def lock_parked(connection: AsyncConnection, operation_id: UUID) -> Sequence[Any]:
    """Lock the parked reports of an operation's registered device operations, by id.

    Rows as of `dead_letter_batch.parked`.
    """
    return await LOCK_PARKED.run(connection, [(operation_id,)])


def _found_by(operation_id: UUID, wanted: DeviceFilter) -> ColumnElement[bool]:
    column = device_operations.c
    states = () if wanted.states is None else (column.state.in_(wanted.states),)
    return and_(column.operation_id == operation_id, *states, *wanted.conditions)
