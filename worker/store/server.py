"""What a database server is, for `deviceops check`: its version and place, and settings that lose commits."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import text

from worker.config import postgresql_url
from worker.store.database import Database

OLDEST = 15
"""The oldest version of PostgreSQL that is tested."""

_SETTINGS = """
    SELECT current_setting('server_version_num')::int / 10000 AS major,
        current_setting('server_version') AS version,
        current_setting('fsync') AS fsync,
        current_setting('full_page_writes') AS full_page_writes,
        current_setting('synchronous_commit') AS synchronous_commit,
        current_setting('synchronous_standby_names') AS standbys
"""


class ServerDescription(NamedTuple):
    """The server behind a connection."""

    description: str
    warnings: list[str]


async def describe(database: Database) -> ServerDescription:
    """Describe the server that a connection reaches. Raises the database's errors."""
    async with database.read() as connection:
        if database.is_sqlite:
            return ServerDescription(f"SQLite {await connection.scalar(text('SELECT sqlite_version()'))}", [])
        found = (await connection.execute(text(_SETTINGS))).one()
        session = (await connection.get_raw_connection()).driver_connection
    assert session is not None
    words = [f"PostgreSQL {found.version} at {session.server}"]
    if session.is_pooled:
        names = "prepared statements" if session.names_statements else "no prepared statements"
        words.append(f"through a pooler: settings in each transaction, {names}")
    return ServerDescription(", ".join(words), [*_warnings(found, postgresql_url.target(database.url))])


def _warnings(found: Any, target: postgresql_url.Target) -> Iterator[str]:
    if found.major < OLDEST:
        yield f"PostgreSQL {found.version} is older than {OLDEST}, the oldest version that is tested"
    if found.fsync != "on":
        yield "fsync is off: a crash of the machine may destroy the database"
    if found.full_page_writes != "on":
        yield "full_page_writes is off: a crash of the machine may destroy tables"
    if found.synchronous_commit == "off":
        yield "synchronous_commit is off: a crash of the server loses reports that were acknowledged just before"
    if len(target.servers) > 1:
        if not found.standbys or found.synchronous_commit in ("off", "local"):
            yield (
                "several hosts are named, and commits wait for no standby (synchronous_standby_names, "
                "synchronous_commit): a failover loses reports that were acknowledged just before"
            )
        if target.session_attributes not in ("read-write", "primary"):
            yield (
                f"target_session_attrs is {target.session_attributes}: sessions on a standby cannot write; "
                "read-write is the default"
            )
