"""What database servers are, for `deviceops check`: version, place, role, and settings that lose commits."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import SecretStr
from sqlalchemy import text

from worker.config import postgresql_url
from worker.config.postgresql_url import Host
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.store import database as databases
from worker.store.database import Database
from worker.store.errors import one_line_error

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
        pg_postmaster_start_time() AS started,
        (SELECT system_identifier FROM pg_control_system()) AS cluster
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


class Servers(NamedTuple):
    """The servers that a database's URL names, if it names several."""

    descriptions: list[str]
    """A line for each that answers."""
    warnings: list[str]


async def describe_all(settings: Settings) -> Servers:
    """Connect to each server that the settings name, if these are several."""
    url, told = settings.sqlalchemy_url, Servers([], [])
    named = () if url.get_backend_name() == "sqlite" else postgresql_url.target(url).servers
    servers = list(dict.fromkeys(named))
    if len(servers) < 2:
        return told
    primaries: dict[datetime, str] = {}
    clusters: dict[int, str] = {}
    all_found = await asyncio.gather(*(_role(settings, server) for server in servers))
    for server, found in zip(servers, all_found, strict=True):
        if isinstance(found, DeviceopsError):
            reason = one_line_error(found.__cause__ or found).removeprefix(f"{server}: ")
            told.warnings.append(f"{server}: {reason}; a failover cannot lead to this host")
            continue
        role = "a standby" if found.is_standby else "the primary"
        told.descriptions.append(f"{server}: PostgreSQL {found.version}, {role}")
        clusters.setdefault(found.cluster, str(server))
        if not found.is_standby:
            primaries.setdefault(found.started, str(server))
    if len(clusters) > 1:
        told.warnings.append(
            f"{' and '.join(clusters.values())} have different databases: neither is a standby of the other"
        )
    elif len(primaries) > 1:
        told.warnings.append(
            f"{' and '.join(primaries.values())} are both primaries, and neither has what is written to the other"
        )
    return told


async def _role(settings: Settings, server: Host) -> Any:
    """A server's row of `_ROLE`, or why there is none."""
    url = postgresql_url.of_one(settings.sqlalchemy_url, server)
    alone = settings.model_copy(update={"database_url": SecretStr(url.render_as_string(hide_password=False))})
    limit = min(settings.database_timeout, postgresql_url.target(url).connect_timeout)
    try:
        async with databases.opened(alone) as opened:
            return await opened.run_with_timeout(_read_role(opened), limit)
    except DeviceopsError as error:
        return error


async def _read_role(database: Database) -> Any:
    async with database.read() as connection:
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
