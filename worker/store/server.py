"""What database servers are, for `deviceops check`: version, place, role, and settings that lose commits."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import SecretStr
from sqlalchemy import text

from worker.config import postgresql_url
from worker.config.postgresql_url import Host
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.store import database as databases
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
_ROLE = """
    SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS is_standby,
        pg_postmaster_start_time() AS started
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


class OtherServers(NamedTuple):
    """The servers of a database's URL beside the one that a connection has reached."""

    descriptions: list[str]
    """A line for each that answers."""
    warnings: list[str]


async def describe_others(settings: Settings, database: Database) -> OtherServers:
    """Connect to each server that the settings name beside the one that `database` reaches."""
    found = OtherServers([], [])
    servers = () if database.is_sqlite else postgresql_url.target(database.url).servers
    if len(servers) < 2:
        return found
    async with database.read() as connection:
        reached = (await connection.execute(text(_ROLE))).one()
        session = (await connection.get_raw_connection()).driver_connection
    assert session is not None
    for server in servers:
        if server == session.server:
            continue
        try:
            other = await _role(settings, server)
        except DeviceopsError as error:
            found.warnings.append(f"{error}; a failover cannot lead to this host")
            continue
        role = "a standby" if other.is_standby else "the primary"
        found.descriptions.append(f"PostgreSQL {other.version} at {server}, {role}")
        if not (other.is_standby or reached.is_standby) and other.started != reached.started:
            found.warnings.append(
                f"{session.server} and {server} are both primaries, and neither has what is written to the other"
            )
    return found


async def _role(settings: Settings, server: Host) -> Any:
    url = postgresql_url.of_one(settings.sqlalchemy_url, server)
    alone = settings.model_copy(update={"database_url": SecretStr(url.render_as_string(hide_password=False))})
    async with databases.opened(alone) as opened, opened.read() as connection:
        return (await connection.execute(text(_ROLE))).one()


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
