"""The schema and its versions: the migrations make what the code describes, and take the data along."""

import json
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, make_url, text

import worker.store
from tests.brokering import report
from tests.command import Deviceops
from tests.databases import in_a_thread
from worker.store import schema
from worker.store.database import Database
from worker.store.tables import metadata

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


def downgraded(url: str) -> None:
    """Make a database as version 0001 left it."""

    async def downgrade() -> None:
        database = Database(make_url(url))
        async with database.write() as connection:
            for index in ("dead_letters_of_operation", "dead_letters_parked", "dead_letters_closed"):
                await connection.execute(text(f"DROP INDEX {index}"))
            await connection.execute(text("DROP TABLE dead_letter_history"))
            for column in ("body_removed_at", "corrects"):
                await connection.execute(text(f"ALTER TABLE dead_letters DROP COLUMN {column}"))
            await connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        await database.close()

    in_a_thread(downgrade())


def test_an_older_schema_is_refused_until_migrate_has_brought_it_up_with_its_data(deviceops: Deviceops) -> None:
    deviceops.out("ingest", "-", lines=json.dumps(report("SUCCESS")))
    [letter] = deviceops.document("dead-letters", "list")
    downgraded(deviceops.settings["database_url"])

    refused = deviceops("status")

    assert refused.returncode == 1
    assert f"has schema 0001, this deviceops needs {schema.HEAD}: run `deviceops migrate`" in refused.stderr
    deviceops.out("migrate")
    assert deviceops.document("dead-letters", "list") == [letter]
    assert deviceops.document("dead-letters", "replay", "--all")["selected"] == 1
