"""Copies all rows of a database into an empty one, SQLite or PostgreSQL."""

from collections.abc import Callable, Mapping

from sqlalchemy import JSON, Insert, Table, bindparam, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.errors import DeviceopsError
from worker.store.database import Database
from worker.store.outbox import LOG
from worker.store.tables import change_cursors, metadata

PORTION = 5_000
"""Rows in memory at a time."""


async def copy(source: Database, target: Database, progress: Callable[[int], object]) -> Mapping[str, int]:
    """Copy in one transaction; returns the number of rows by table. Both need the current schema.

    Raises DeviceopsError if the target has any row.
    """
    copied = {}
    async with source.read() as reading, target.write() as writing:
        cursor = change_cursors.c  # that of an empty log, which the migration has made: the source has its own
        await writing.execute(delete(change_cursors).where(cursor.name == LOG, cursor.position == 0))
        for table in metadata.sorted_tables:
            if await writing.scalar(select(func.count()).select_from(table)):
                raise DeviceopsError(
                    f"database {target}: has rows in {table.name} already, and nothing was copied"
                )
        for table in metadata.sorted_tables:
            copied[table.name] = await _copy_table(reading, writing, table, progress)
            if not target.is_sqlite:
                await _number_on(writing, table)
    return copied


async def _copy_table(
    reading: AsyncConnection, writing: AsyncConnection, table: Table, progress: Callable[[int], object]
) -> int:
    statement = _insert(table)
    count = 0
    async for rows in (await reading.stream(select(table))).mappings().partitions(PORTION):
        await writing.execute(statement, [{f"value_{name}": value for name, value in row.items()} for row in rows])
        count += len(rows)
        progress(len(rows))
    return count


def _insert(table: Table) -> Insert:
    """An INSERT that keeps NULL; by default SQLAlchemy writes None as JSON null."""
    return insert(table).values(
        {
            column.name: bindparam(
                f"value_{column.name}",
                type_=JSON(none_as_null=True) if isinstance(column.type, JSON) else column.type,
            )
            for column in table.columns
        }
    )


async def _number_on(writing: AsyncConnection, table: Table) -> None:
    """Set the sequence of a table to its largest id (PostgreSQL)."""
    if (column := table.autoincrement_column) is not None and column.autoincrement is True:
        largest = await writing.scalar(select(func.max(column)))
        sequence = await writing.scalar(
            text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
        )
        if largest is not None and sequence is not None:
            await writing.execute(
                text("SELECT setval(:sequence, :largest)"), {"sequence": sequence, "largest": largest}
            )
