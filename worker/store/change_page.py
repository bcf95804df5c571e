"""Reads the log of changes page by page, by a position that the reader keeps; pages have a limited size."""

import asyncio
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.changes import ChangeType
from worker.store import outbox
from worker.store.change_log import Extent, LoggedChange, extent
from worker.store.database import Database
from worker.store.errors import is_read_only
from worker.store.tables import changes
from worker.store.tables import outbox as pending

WINDOW = 10_000
"""Positions that one page of all operations looks at: what is selected may be rare."""
BUSY = 0.01
"""Seconds between two attempts to number what another process is numbering."""
ATTEMPTS = 20
"""Number of them; the next look finds what is left."""


class Missed(StrEnum):
    """Why a reader cannot go on where it was."""

    REMOVED = "removed"
    """What follows is no longer kept."""
    BEYOND_END = "beyond_end"
    """The log ends before: it is of a database that was restored, or of another one."""


class Page(NamedTuple):
    """The next changes after a position, and what the log held then."""

    changes: Sequence[LoggedChange]
    end: int
    """The position up to which these are all that was asked for."""
    extent: Extent

    @property
    def is_last(self) -> bool:
        """Whether it reaches the end of the log."""
        return self.end == self.extent.last


def missed_after(position: int, log: Extent) -> Missed | None:
    """Why what follows a position cannot be read; None if all of it can."""
    if position > log.last:
        return Missed.BEYOND_END
    return Missed.REMOVED if log.first > position + 1 else None


async def number_all(database: Database, writing: Database | None = None) -> None:
    """Number the changes that are committed, so that they can be read. Raises the database's errors.

    `writing` is the same database with a pool for writers. One that can only read numbers nothing.
    """
    if not database.is_sqlite:
        try:
            await _number_all(database, writing or database)
        except Exception as error:
            if not is_read_only(error):
                raise


async def _number_all(database: Database, writing: Database) -> None:
    for _ in range(ATTEMPTS):
        async with database.read() as connection:
            if not (await connection.execute(select(select(pending.c.position).exists()))).scalar_one():
                return
        has_more: bool | None = True
        while has_more:
            async with writing.write(is_counted=False) as connection:
                has_more = await outbox.number(connection)
        if has_more is False:
            return
        await asyncio.sleep(BUSY)


async def read_page(
    connection: AsyncConnection,
    after: int,
    limit: int,
    size: int,
    operation_id: UUID | None = None,
    types: Collection[ChangeType] = (),
) -> Page:
    """At most `limit` changes after a position, of about `size` bytes; of one operation or some types if given."""
    log = await extent(connection)
    column = changes.c
    end = log.last if operation_id is not None else min(log.last, after + WINDOW)
    chosen = select(changes).where(column.position > after, column.position <= end)
    if operation_id is not None:
        chosen = chosen.where(column.aggregateid == str(operation_id))
    if types:
        chosen = chosen.where(column.type.in_([each.value for each in types]))
    first = chosen.order_by(column.position).limit(limit).subquery().c
    length = (func.octet_length if connection.dialect.name == "postgresql" else func.length)(first.payload)
    total = func.sum(length).over(order_by=first.position)
    fields = LoggedChange._fields
    sized = select(*(first[name] for name in fields), length.label("length"), total.label("total")).subquery().c
    query = select(*(sized[name] for name in fields), sized.total).where(sized.total - sized.length < size)
    found: list[LoggedChange] = []
    rows = (await connection.execute(query.order_by(sized.position))).all()
    for *row, _ in rows:
        change = LoggedChange(*row)
        found.append(change._replace(type=ChangeType(change.type)))
    is_whole = len(rows) < limit and (not rows or rows[-1].total < size)
    return Page(found, end if is_whole else found[-1].position, log)
