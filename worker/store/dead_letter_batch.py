"""Reads and writes of a batch's dead letters. `batch` has the lock order."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.outcomes import Status
from worker.store.bulk import with_json
from worker.store.rows import HistoryEntry, SettledDeadLetter
from worker.store.statements import dead_letters as dead_letter_sql
from worker.store.tables import dead_letters


async def kept(connection: AsyncConnection, fingerprints: Collection[UUID]) -> set[UUID]:
    """The fingerprints that belong to dead letters."""
    return {id_ for (id_,) in await dead_letter_sql.KEPT.run(connection, [(each,) for each in fingerprints])}


async def discarded(connection: AsyncConnection, fingerprints: Collection[UUID]) -> set[UUID]:
    """The fingerprints that belong to discarded dead letters."""
    return {id_ for (id_,) in await dead_letter_sql.DISCARDED.run(connection, [(each,) for each in fingerprints])}


async def parked(connection: AsyncConnection, ids: Collection[UUID], limit: int) -> Sequence[Any]:
    """Parked reports of device operations, at most `limit`, without their bodies.

    Rows of id, operation, device operation, size in bytes; sorted by device operation, then oldest first.
    """
    return await dead_letter_sql.PARKED.run(connection, [(id_,) for id_ in ids], limit=limit)


async def weigh_parked(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, tuple[int, int]]:
    """Number and approximate bytes of the parked reports by device operation; without those that have none."""
    rows = await dead_letter_sql.WEIGH_PARKED.run(connection, [(id_,) for id_ in ids])
    return {id_: (reports, size) for id_, reports, size in rows}


async def read_parked(connection: AsyncConnection, dead_letter_ids: Collection[int]) -> Sequence[Any]:
    """Rows of the dead letters that are parked reports, oldest first."""
    return await dead_letter_sql.READ_PARKED.run(connection, [(id_,) for id_ in dead_letter_ids])


async def lock(
    connection: AsyncConnection, ids: Collection[int]
) -> dict[int, tuple[Status, int, datetime | None]]:
    """Lock dead letters until the commit; returns what may have changed since they were read.

    By id, of those that exist: status, number of attempts, and when retention removed the body.
    """
    rows = await dead_letter_sql.LOCK_DEAD_LETTERS.run(connection, [(id_,) for id_ in ids])
    return {id_: (Status(status), attempts, body_removed_at) for id_, status, attempts, body_removed_at in rows}


async def keep(connection: AsyncConnection, rows: list[dict[str, Any]]) -> dict[UUID, int]:
    """Insert dead letters; returns the ids of the new ones by fingerprint. A duplicate message adds no row.

    Ids are in order of arrival, in which parked reports are released. Only unreadable messages may conflict with
    those of another transaction: they are inserted first, sorted by fingerprint, so that no deadlock arises.
    """
    if not rows:
        return {}
    unreadable = [row for row in rows if row["device_operation_id"] is None]
    readable = [row for row in rows if row["device_operation_id"] is not None]
    ordered = sorted(unreadable, key=lambda row: row["fingerprint"]) + readable
    if connection.dialect.name == "postgresql":
        kept = await dead_letter_sql.KEEP.run(
            connection, [tuple(_columns(number, row)) for number, row in enumerate(ordered)]
        )
        return dict(kept)
    # SQLite reads rows from JSON, which cannot contain bytes.
    inserting = sqlite.insert(dead_letters).on_conflict_do_nothing()
    statement = inserting.returning(dead_letters.c.fingerprint, dead_letters.c.id)
    return {row.fingerprint: row.id for row in await connection.execute(statement, ordered)}


def _columns(number: int, row: Mapping[str, Any]) -> Iterator[object]:
    """Values of a dead letter for `KEEP`; missing columns are NULL."""
    yield number
    for name in list(dead_letter_sql.KEEP.rows)[1:]:
        yield with_json(row.get(name))


async def settle(connection: AsyncConnection, rows: list[SettledDeadLetter]) -> None:
    """Update dead letters with the outcome of processing them."""
    await dead_letter_sql.SETTLE.run(connection, rows)


async def note_history(connection: AsyncConnection, entries: Sequence[HistoryEntry]) -> None:
    """Add entries to the histories of dead letters, before the dead letters are changed.

    The first entry of a history, the receipt, is made from the row as it is before the change.
    """
    await dead_letter_sql.BEGIN_HISTORY.run(
        connection, [(id_,) for id_ in dict.fromkeys(entry.id for entry in entries)]
    )
    await dead_letter_sql.NOTE_HISTORY.run(connection, entries)
