"""The outbox: changes are written in the transaction that makes them true, and numbered after its commit.

Transactions become visible in another order than that in which they have begun, so that no number that they give
out themselves would be one that a reader can go on after. On PostgreSQL a change stands in `outbox` until a
process moves what has been committed into `changes` and numbers it there, one process at a time. On SQLite, where
transactions that write follow each other, they write into `changes` themselves.
"""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.changes import Change
from worker.store.bulk import CHANGES_CHANNEL, Statement

LOG = "log"
"""Name of the cursor that says how far the log goes."""
PORTION = 1_000
"""Changes that are numbered in one transaction."""

_ROWS = {
    "number": "integer",
    "id": "uuid",
    "aggregatetype": "text",
    "aggregateid": "text",
    "type": "text",
    "payload": "text",
    "routing_key": "text",
    "sequence": "bigint",
}
_COLUMNS = ", ".join([*Change._fields, "recorded_at"])
_VALUES = ", ".join([*(f"rows.{name}" for name in Change._fields), "{clock}"])

TELL = Statement(
    f"""
    WITH told AS (
        INSERT INTO outbox ({_COLUMNS}) SELECT {_VALUES} FROM {{rows}} ORDER BY rows.number
    )
    SELECT pg_notify('{CHANGES_CHANNEL}', '')
    """,
    rows=_ROWS,
)
TELL_SQLITE = Statement(
    f"""
    INSERT INTO changes (position, {_COLUMNS})
    SELECT (SELECT position FROM change_cursors WHERE name = '{LOG}') + rows.number, {_VALUES} FROM {{rows}}
    """,
    rows=_ROWS,
)
_ADVANCE_SQLITE = text(f"UPDATE change_cursors SET position = position + :count WHERE name = '{LOG}'")

_LOCK = text(f"SELECT position FROM change_cursors WHERE name = '{LOG}' FOR UPDATE SKIP LOCKED")
NUMBERING = f"""
    moved AS (
        DELETE FROM outbox WHERE position IN (SELECT position FROM outbox ORDER BY position LIMIT :limit)
            AND {{condition}}
        RETURNING *
    ), added AS (
        INSERT INTO changes (position, {_COLUMNS})
        SELECT {{last}} + row_number() OVER (ORDER BY position), {_COLUMNS} FROM moved
        RETURNING *
    ), numbered AS (
        UPDATE change_cursors SET position = position + (SELECT count(*) FROM added)
        WHERE name = '{LOG}' AND EXISTS (SELECT FROM added)
    )
"""
"""Parts of a statement that moves committed changes into the log, as `added`, if a condition holds and the log's
cursor, which ends at `last`, is locked."""
_NUMBER = text(f"WITH {NUMBERING.format(condition='true', last=':last')} SELECT count(*) FROM added")


async def tell(connection: AsyncConnection, told: Sequence[Change]) -> None:
    """Write changes, in their order, in the transaction that makes them true."""
    if not told:
        return
    rows = [(number, *change) for number, change in enumerate(told, 1)]
    if connection.dialect.name == "postgresql":
        await TELL.run(connection, rows)
    else:
        await TELL_SQLITE.run(connection, rows)
        await connection.execute(_ADVANCE_SQLITE, {"count": len(rows)})


async def number(connection: AsyncConnection) -> bool | None:
    """Number changes that are committed, at most `PORTION`; returns whether there may be more.

    None if another process does it just now. The numbers are without a gap, and no change is visible before one
    with a smaller number. An operation's changes keep their order: each was written under the operation's lock.
    """
    if connection.dialect.name != "postgresql":
        return False
    last = (await connection.execute(_LOCK)).scalar_one_or_none()
    if last is None:
        return None
    count: int = (await connection.execute(_NUMBER, {"last": last, "limit": PORTION})).scalar_one()
    return count == PORTION
