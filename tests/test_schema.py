"""The schema and its versions: the migrations make what the code describes, and take the data along."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Uuid, bindparam, inspect, make_url, text

import worker.store
from tests.command import Deviceops
from tests.databases import in_a_thread
from worker.store import schema
from worker.store.database import Database
from worker.store.tables import UtcDateTime, metadata

MIGRATIONS = Path(worker.store.__file__).parent / "migrations"


def test_the_version_that_the_code_expects_is_that_of_the_last_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == schema.HEAD


async def test_the_migrations_make_the_tables_that_the_code_describes(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    def partial_indexes(connection: Connection) -> set[str]:
        found = inspect(connection).get_indexes("dead_letters")
        return {str(index["name"]) for index in found if index.get("dialect_options")}

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
        partial = await connection.run_sync(partial_indexes)
    assert partial >= {"dead_letters_open", "dead_letters_parked", "dead_letters_closed"}


OPERATION = "497f6eca-6276-4993-bfeb-53cbbbba6f08"
OF_VERSION_1 = (
    """
    INSERT INTO operations (id, operation_type, state, created_at, updated_at, resolved_device_count,
        dispatched_device_count, dispatch_failed_count, failed_device_count, success_device_count,
        settled_device_count)
    VALUES (:operation, 'CONVERGE', 'DISPATCHING', :at, :at, 2, 1, 0, 0, 1, 1)
    """,
    """
    INSERT INTO device_operations (id, operation_id, device_id, state, dispatched, reason, created_at, updated_at)
    VALUES (:one, :operation, :one, 10, false, '', :at, :at), (:other, :operation, :other, 50, true, '', :at, :at)
    """,
    """
    INSERT INTO dead_letters (fingerprint, reason, detail, status, attempts, received_at, operation_id, device_id,
        exchange, routing_key, properties, headers, body)
    VALUES (:one, 'malformed', 'it was not JSON', 'open', 0, :at, :operation, :one, '', '', '{}', '{}', :body)
    """,
)


def make_version_1(url: str) -> None:
    """Fill an empty database as version 0001 would have."""
    ids = {name: UUID(int=number) for number, name in enumerate(("one", "other"))} | {"operation": UUID(OPERATION)}
    values = {**ids, "at": datetime.now(UTC), "body": b"what?"}
    types = [bindparam(name, type_=Uuid()) for name in ids] + [bindparam("at", type_=UtcDateTime())]

    def migrate(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in OF_VERSION_1:
            clause = text(statement)
            used = [type_ for type_ in types if f":{type_.key}" in statement]
            connection.execute(clause.bindparams(*used), {n: v for n, v in values.items() if f":{n}" in statement})

    async def fill() -> None:
        database = Database(make_url(url))
        async with database.write() as connection:
            await connection.run_sync(migrate)
        await database.close()

    in_a_thread(fill())


@pytest.fixture(params=["sqlite", "postgresql"])
def version_1(request: pytest.FixtureRequest, tmp_path: Path) -> Deviceops:
    """The command on a database of version 0001; once on each kind."""
    url = (
        f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue("new_empty_postgresql_database")
    )
    make_version_1(url)
    return Deviceops(tmp_path, {"database_url": url})


def test_an_older_schema_is_refused_until_migrate_has_brought_it_up_with_its_data(version_1: Deviceops) -> None:
    refused = version_1("status")

    assert refused.returncode == 1
    assert f"has schema 0001, this deviceops needs {schema.HEAD}: run `deviceops migrate`" in refused.stderr
    version_1.out("migrate")
    assert version_1.document("recount") == {"operations": 1, "drifted": []}
    page = version_1.document("devices", OPERATION, "--state", "SUCCESS")
    assert (page["count"], [found["state"] for found in page["results"]]) == (1, ["SUCCESS"])
    [letter] = version_1.document("dead-letters", "list")
    assert letter["detail"] == "it was not JSON"
    assert version_1.document("dead-letters", "replay", "--all")["still_dead"] == {"malformed": 1}


def test_a_migration_that_fails_changes_nothing(version_1: Deviceops) -> None:
    url = version_1.settings["database_url"]

    def columns(connection: Connection) -> dict[str, list[str]]:
        inspector = inspect(connection)
        names = inspector.get_table_names()
        return {name: sorted(column["name"] for column in inspector.get_columns(name)) for name in names}

    async def tables(*statements: str) -> dict[str, list[str]]:
        database = Database(make_url(url))
        async with database.write() as connection:
            for statement in statements:
                await connection.execute(text(statement))
            found = await connection.run_sync(columns)
        await database.close()
        return found

    # An index that stands in the way of the last migration's end.
    before = in_a_thread(tables("CREATE INDEX device_operations_of_device ON operations (state)"))

    assert version_1("migrate").returncode == 1

    assert in_a_thread(tables()) == before
    assert "has schema 0001, this deviceops needs" in version_1("status").stderr
