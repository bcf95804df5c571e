"""Errors of the database in the log."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from worker.store.database import Database

PLANTED = "pl4nt3d"
"""Stands in what is sent, or in what only a program knows, and must not stand in the log."""


async def test_an_error_of_the_database_does_not_tell_the_parameters(database: Database) -> None:
    with pytest.raises(DBAPIError) as failure:
        async with database.write() as connection:
            await connection.execute(text("INSERT INTO nowhere VALUES (:body)"), {"body": PLANTED})
    assert "nowhere" in str(failure.value)
    assert PLANTED not in str(failure.value)
