"""Time that passes for a database, without waiting for it."""

from collections import defaultdict
from uuid import UUID

from sqlalchemy import delete, insert, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.support.databases import in_a_thread
from worker.model import minutes
from worker.store.database import Database
from worker.store.tables import operation_minutes


async def elapse(database: Database, seconds: int) -> None:
    """Let time pass: everything that the database's clock has written is so much longer ago.

    The minutes in which something settled are so by whole minutes.
    """
    milliseconds = 1_000 * seconds
    times = ("registered_at", "dispatched_at", "reported_at", "expires_at")
    changes: dict[str, dict[str, object]] = {
        "device_operations": dict.fromkeys(times, milliseconds),
        "operations": {
            **dict.fromkeys(("deadline", "schedule_end", "moved_at"), milliseconds),
            "minute": f"CASE WHEN minute > 0 THEN {seconds // 60} ELSE 0 END",
        },
        "device_operation_activity": {"recorded_at": seconds},
        "timeout_defaults": {"since": milliseconds},
        "consumers": dict.fromkeys(("seen_at", "settled_until", "processed_until"), milliseconds),
    }
    async with database.write() as connection:
        for table, names in changes.items():
            setting = ", ".join(f"{name} = {name} - {less}" for name, less in names.items())
            await connection.execute(text(f"UPDATE {table} SET {setting}"))  # noqa: S608
        await _shift_minutes(connection, seconds // 60)


async def _shift_minutes(connection: AsyncConnection, by: int) -> None:
    """Move the minutes in which something settled into the past, by a number of minutes."""
    shifted: defaultdict[tuple[UUID, int], list[str]] = defaultdict(list)
    for row in (await connection.execute(select(operation_minutes))).all():
        for minute, number, length in minutes.read([(row.hour, row.settled)]):
            assert length == 1, "not of hours that are thinned"
            hour, entry = minutes.entry(minute - by, number)
            shifted[row.operation_id, hour].append(entry)
    await connection.execute(delete(operation_minutes))
    rows = [{"operation_id": id_, "hour": hour, "settled": " ".join(of)} for (id_, hour), of in shifted.items()]
    if rows:
        await connection.execute(insert(operation_minutes), rows)


def elapse_at(url: str, seconds: int) -> None:
    """The same for the database at a URL."""

    async def run() -> None:
        database = Database(make_url(url))
        await elapse(database, seconds)
        await database.close()

    in_a_thread(run())
