"""Notes on groups of dead letters. A group is known by its filters, as a query string."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store.tables import dead_letter_notes

MAX_LENGTH = 2_000
"""Characters of a note."""
MAX_FILTER = 2_000
"""Bytes of a filter: an index has it, and PostgreSQL's takes 2,704 bytes of a row."""
SHOWN = 50
"""Notes of a group that are read, the latest ones."""

_c = dead_letter_notes.c


class Note(NamedTuple):
    """A note: `who` is the name of a token."""

    id: int
    filter: str
    at: datetime
    who: str
    text: str


async def add(connection: AsyncConnection, filter_: str, who: str, text: str) -> int:
    """Add a note, dated now; returns its id."""
    adding = insert(dead_letter_notes).values(filter=filter_, at=datetime.now(UTC), who=who, text=text)
    added: int = (await connection.execute(adding.returning(_c.id))).scalar_one()
    return added


async def remove(connection: AsyncConnection, id_: int) -> Note | None:
    """Remove a note, and return it; None if it does not exist."""
    columns = [_c[name] for name in Note._fields]
    row = (
        await connection.execute(delete(dead_letter_notes).where(_c.id == id_).returning(*columns))
    ).one_or_none()
    return None if row is None else Note(*row)


async def of(connection: AsyncConnection, filter_: str) -> Sequence[Note]:
    """The latest notes of a group, newest first."""
    columns = [_c[name] for name in Note._fields]
    query = select(*columns).where(_c.filter == filter_).order_by(_c.id.desc()).limit(SHOWN)
    return [Note(*row) for row in await connection.execute(query)]


async def latest_of(connection: AsyncConnection, filters: Collection[str]) -> dict[str, Note]:
    """The latest note of each of some groups that has one."""
    newest = select(func.max(_c.id)).where(_c.filter.in_(filters)).group_by(_c.filter)
    columns = [_c[name] for name in Note._fields]
    rows = await connection.execute(select(*columns).where(_c.id.in_(newest)))
    return {row.filter: Note(*row) for row in rows}
