"""Time that passes for a database, without waiting for it."""

from sqlalchemy import make_url, text

from tests.support.databases import in_a_thread
from worker.store.database import Database


async def elapse(database: Database, seconds: int) -> None:
    """Let time pass: everything that the database's clock has written is so much longer ago."""
    milliseconds = 1_000 * seconds
    times = ("registered_at", "dispatched_at", "reported_at", "expires_at")
    changes = {
        "device_operations": dict.fromkeys(times, milliseconds),
        "operations": {"deadline": milliseconds, "schedule_end": milliseconds},
        "device_operation_activity": {"recorded_at": seconds},
        "timeout_defaults": {"since": milliseconds},
        "consumers": dict.fromkeys(("seen_at", "settled_until", "processed_until"), milliseconds),
    }
    async with database.write() as connection:
        for table, names in changes.items():
            setting = ", ".join(f"{name} = {name} - {less}" for name, less in names.items())
            await connection.execute(text(f"UPDATE {table} SET {setting}"))  # noqa: S608


def elapse_at(url: str, seconds: int) -> None:
    """The same for the database at a URL."""

    async def run() -> None:
        database = Database(make_url(url))
        await elapse(database, seconds)
        await database.close()

    in_a_thread(run())
