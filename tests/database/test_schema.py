"""The migrations make what the code describes."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from worker.store.database import Database
from worker.store.tables import metadata

pytestmark = pytest.mark.each_database(full=True)


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
