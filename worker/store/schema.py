"""The version of the schema: migrated by Alembic, and checked before the database is used."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, inspect, text

from worker.errors import DeviceopsError
from worker.store.database import Database
from worker.store.tables import metadata

HEAD = "0015"
"""The version that this code requires. Versions are numbers, so that newer ones are recognised."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6465766963656F70  # "deviceop": concurrent migrations wait for each other
_VERSION = "alembic_version"
_NUMBERED = re.compile(r"\d{4}")
_OF_EVERY_VERSION = {"announcements", "dead_letters", "device_operations", "operation_activity", "operations"}
_NAMED = 5
"""Maximum number of tables in an error message."""

# Tables visible on the search path; new tables are created in its first schema. Tables of extensions, such as
# PostGIS's spatial_ref_sys, are excluded. Views count as tables.
_TABLES = """
    SELECT relname, relnamespace = to_regnamespace(current_schema()) AS is_here FROM pg_class c
    WHERE relkind IN ('r', 'p', 'f', 'v', 'm') AND pg_table_is_visible(oid)
        AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
        AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
            AND deptype = 'e')
"""


class _Found(NamedTuple):
    """Tables and versions found in a database."""

    encoding: str
    tables: set[str]
    """All visible tables."""
    here: set[str]
    """Tables in the schema where ours are created."""
    versions: Collection[str] | None
    """Versions recorded by Alembic, None without its table."""


async def migrate(database: Database) -> str:
    """Migrate the schema to the version of this code, and return the version.

    Raises DeviceopsError if the schema is newer, belongs to another program, or has another encoding than UTF-8.
    """
    async with database.write() as connection:
        if not database.is_sqlite:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        return await connection.run_sync(_upgrade, str(database))


async def require_current_schema(database: Database) -> None:
    """Check the version of the schema; an empty SQLite file is migrated.

    Raises DeviceopsError with instructions if the schema is not current.
    """
    async with database.read() as connection:
        version = _version(await connection.run_sync(_inspect), str(database))
    if version is None and database.is_sqlite:
        await migrate(database)
        return
    if version == HEAD:
        return
    what = "has no deviceops schema" if version is None else f"has schema {version}, this deviceops needs {HEAD}"
    raise DeviceopsError(f"database {database} {what}: run `deviceops migrate` on it")


def _inspect(connection: Connection) -> _Found:
    if connection.dialect.name == "postgresql":
        encoding = connection.scalar(text("SELECT current_setting('server_encoding')"))
        rows = connection.execute(text(_TABLES)).all()
        tables, here = {name for name, _ in rows}, {name for name, is_here in rows if is_here}
    else:
        encoding = "UTF8"  # SQLite's UTF-16 stores all text too, and returns UTF-8
        inspector = inspect(connection)
        tables = here = {*inspector.get_table_names(), *inspector.get_view_names()}
    versions = None
    if _VERSION in tables:
        versions = connection.scalars(text(f"SELECT version_num FROM {_VERSION}")).all()  # noqa: S608  # ours
    return _Found(encoding, tables, here, versions)


def _version(found: _Found, where: str) -> str | None:
    """Version of the schema, None if there is none. Raises DeviceopsError for a database of another program."""
    if found.encoding != "UTF8":
        raise DeviceopsError(
            f"database {where} has the encoding {found.encoding}, which cannot store every text: "
            "create it WITH ENCODING 'UTF8' TEMPLATE template0"
        )
    if not found.versions:
        if strangers := found.here - {_VERSION}:
            raise _not_ours(where, "has tables, but no version of deviceops", strangers)
        return None
    version = ", ".join(sorted(map(str, found.versions)))
    if not _NUMBERED.fullmatch(version):
        raise _not_ours(where, f"has {_VERSION} {version}, which is not a version of deviceops", found.here)
    is_newer = version > HEAD
    missing = (metadata.tables.keys() if version == HEAD else _OF_EVERY_VERSION) - set(found.tables)
    if missing and (not is_newer or missing == _OF_EVERY_VERSION):
        what = f"has {_VERSION} {version}, but not the tables of deviceops: missing {_named(missing)}"
        raise _not_ours(where, what, found.here)
    if is_newer:
        raise DeviceopsError(
            f"database {where} has schema {version}, newer than this deviceops knows: upgrade deviceops"
        )
    return version


def _not_ours(where: str, what: str, tables: Collection[str]) -> DeviceopsError:
    return DeviceopsError(
        f"database {where} {what} (it has {_named(set(tables) - {_VERSION}) or 'none'}): it seems to be another "
        "program's; DEVICEOPS_DATABASE_URL is to name a database, or a schema, of deviceops' own"
    )


def _named(tables: Collection[str]) -> str:
    names = sorted(tables)
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _upgrade(connection: Connection, where: str) -> str:
    from alembic import command  # here: few commands migrate, and every command would pay for it
    from alembic.config import Config

    _version(_inspect(connection), where)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
    return HEAD
