"""Exports: all rows of a list as text, read bit by bit from one snapshot of the database."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, func, literal_column, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.identity import device_operation_ids
from worker.store import export_lines as lines
from worker.store import queries
from worker.store.device_filter import DeviceFilter
from worker.store.export_lines import Format
from worker.store.operation_filter import OperationFilter
from worker.store.tables import UtcDateTime, device_operations, operations

PORTION = 500
"""Rows that are read and written at a time: some 150 kB, and 10 ms of the event loop."""


class Portion(NamedTuple):
    """Whole lines, and of how many rows they are."""

    text: bytes
    rows: int


@dataclass(frozen=True, slots=True)
class Export:
    """The number of rows, and their text; the generator is to be closed."""

    count: int
    portions: AsyncGenerator[Portion, None]


async def of_device_operations(
    connection: AsyncConnection, operation_id: UUID, chosen: DeviceFilter, format_: Format
) -> Export:
    """The device operations of an operation that match a filter, in the order of their ids."""
    condition = chosen.of_operation(operation_id)
    counting = select(func.count()).select_from(device_operations).where(condition)
    count = (await connection.execute(counting)).scalar_one()
    return Export(count, _of_device_operations(connection, chosen, operation_id, format_))


async def of_operations(connection: AsyncConnection, chosen: OperationFilter, format_: Format) -> Export:
    """The operations that match a filter, in the order of their ids."""
    count = sum((await chosen.count(connection)).values())
    return Export(count, _of_operations(connection, chosen, format_))


async def _of_device_operations(
    connection: AsyncConnection, chosen: DeviceFilter, operation_id: UUID, format_: Format
) -> AsyncGenerator[Portion, None]:
    written = lines.device_operations_as_json
    if format_ is Format.CSV:
        written = lines.device_operations_as_csv
        yield Portion(lines.csv_lines([lines.DEVICE_COLUMNS]).encode(), 0)
    query = select(*map(_as_read, lines.READ)).where(*_condition(connection, chosen, operation_id))
    query = query.order_by(device_operations.c.id)
    result = await connection.stream(query, execution_options={"yield_per": PORTION})
    try:
        async for rows in result.partitions():
            yield Portion(written(operation_id, rows).encode(), len(rows))
    finally:
        await result.close()


def _condition(
    connection: AsyncConnection, chosen: DeviceFilter, operation_id: UUID
) -> Sequence[ColumnElement[bool]]:
    if connection.dialect.name != "sqlite":
        return [chosen.of_operation(operation_id)]
    # SQLite would walk another index, and sort all rows in memory as large as its cache. The ids of an
    # operation's device operations lie together; a plus sign has it use no index for a column.
    is_operation = literal_column("+operation_id", Uuid) == operation_id
    ids = device_operations.c.id.between(*device_operation_ids(operation_id))
    return [ids, is_operation, chosen.of_states, *chosen.conditions]


def _as_read(name: str) -> ColumnElement[Any]:
    """A column; times as the driver has them, since our own type takes as long as all the rest of a row."""
    column = device_operations.c[name]
    return type_coerce(column, column.type.impl) if isinstance(column.type, UtcDateTime) else column


async def _of_operations(
    connection: AsyncConnection, chosen: OperationFilter, format_: Format
) -> AsyncGenerator[Portion, None]:
    written = lines.operations_as_json
    if format_ is Format.CSV:
        written = lines.operations_as_csv
        yield Portion(lines.csv_lines([lines.OPERATION_COLUMNS]).encode(), 0)
    id_ = operations.c.id
    query = select(id_).where(chosen.condition).order_by(id_).limit(PORTION)
    ids = (await connection.execute(query)).scalars().all()
    while ids:
        found = {each.id: each for each, _ in await queries.get_operations(connection, ids)}
        yield Portion(written(found[each] for each in ids).encode(), len(ids))
        ids = (await connection.execute(query.where(id_ > ids[-1]))).scalars().all()
