"""The schema's version: applied by Alembic, and checked before anything else touches the database."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from worker.errors import DeviceopsError
from worker.store.database import Database

HEAD = "0006"
"""The version that this code expects. Versions are numbered, so that a newer one is told from an older one."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6465766963656F70  # "deviceop": two migrations of one PostgreSQL wait for each other


async def migrate(database: Database) -> str:
    """Bring the schema to the version of this code, and return that version.

    Raises DeviceopsError if the database is newer than the code.
    """
    async with database.write() as connection:
        if not database.is_sqlite:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        return await connection.run_sync(_upgrade)


async def require_current_schema(database: Database) -> None:
    """Make sure that the schema is the one that this code expects.

    An SQLite file without any tables is set up at once. Everything else that is not current is refused
    with a DeviceopsError that says what to do.
    """
    async with database.read() as connection:
        found, is_empty = await connection.run_sync(_inspect)
    if found is None and is_empty and database.is_sqlite:
        await migrate(database)
        return
    if found == HEAD:
        return
    if found is None:
        what = "has no deviceops schema" if is_empty else "has tables, but none of deviceops"
        raise DeviceopsError(f"database {database} {what}: run `deviceops migrate`")
    _refuse_newer(found, str(database))
    raise DeviceopsError(
        f"database {database} has schema {found}, this deviceops needs {HEAD}: run `deviceops migrate`"
    )


def _inspect(connection: Connection) -> tuple[str | None, bool]:
    """The schema's version, None if it has none, and whether the database has no tables at all."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        return None, not tables
    return connection.scalar(text("SELECT version_num FROM alembic_version")), False


def _refuse_newer(found: str, where: str) -> None:
    if found > HEAD:
        raise DeviceopsError(
            f"database {where} has schema {found}, newer than this deviceops knows: upgrade deviceops"
        )


def _upgrade(connection: Connection) -> str:
    from alembic import command  # here, because every command would pay for it and few migrate
    from alembic.config import Config

    found, _ = _inspect(connection)
    if found is not None:
        _refuse_newer(found, connection.engine.url.render_as_string(hide_password=True))
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
    return HEAD
