"""A write probe runs every statement of a batch, and leaves nothing."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.processing.write_probe import probe_write
from worker.store import bulk, outbox
from worker.store.bulk import Statement
from worker.store.database import Database
from worker.store.statements import dead_letters, device_operations, operations, reason_groups
from worker.store.tables import metadata

NOT_OF_ONE_BATCH = {"ARM", "DISCARDED", "LOCK_SKIP_LOCKED", "KEPT", "PEEK", "WEIGH_PARKED"}
"""Those of dry runs, of what another batch inserts, kept or announced, and of portions; others read and write the
same."""
NOT_OF_ONE_BATCH |= {"LOCK_PARKED", "RECORD_REGISTRATIONS", "REGISTER"}  # of retries


async def test_a_probe_runs_every_statement_of_batches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = operations, device_operations, dead_letters, outbox, reason_groups
    names = {
        each: name for module in modules for name, each in vars(module).items() if isinstance(each, Statement)
    }
    execute, copy = bulk._execute, Statement._copy
    ran: set[str] = set()

    async def execute_and_note(connection: AsyncConnection, runs: Sequence[bulk.Run], parameters: Any) -> Any:
        ran.update(names[statement] for statement, _ in runs)
        return await execute(connection, runs, parameters)

    async def copy_and_note(statement: Statement, connection: AsyncConnection, table: str, found: Any) -> None:
        ran.add(table)
        await copy(statement, connection, table, found)

    monkeypatch.setattr(bulk, "_execute", execute_and_note)
    monkeypatch.setattr(Statement, "_copy", copy_and_note)

    await probe_write(database)

    if database.is_sqlite:
        ran.add("KEEP")  # it has another way to write dead letters
    ran.add("TELL" if database.is_sqlite else "TELL_SQLITE")  # each has a way of its own
    assert set(names.values()) - ran == NOT_OF_ONE_BATCH
    assert {each._table for each in names if each._table} <= ran


async def test_it_leaves_no_row_and_counts_as_no_commit(database: Database) -> None:
    commits: list[float] = []
    database.on_commit = commits.append

    await probe_write(database)

    async with database.read() as connection:
        for table in metadata.tables.keys() - {"change_cursors"}:
            assert await connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0, table  # noqa: S608
        assert await connection.scalar(text("SELECT position FROM change_cursors")) == 0
    assert commits == []


async def test_probes_at_the_same_time_do_not_wait_for_one_another(postgresql_database: Database) -> None:
    async with asyncio.timeout(20), postgresql_database.engine.begin() as connection:
        await probe_write(postgresql_database)
        await connection.execute(text("SELECT 1"))
        await asyncio.gather(*(probe_write(postgresql_database) for _ in range(3)))


async def test_a_write_is_committed_to_an_sqlite_file(sqlite_database: Database) -> None:
    with closing(sqlite3.connect(sqlite_database.url.database or "")) as other:
        version = other.execute("PRAGMA data_version").fetchone()  # another one after each commit of others
        await probe_write(sqlite_database)
        assert other.execute("PRAGMA data_version").fetchone() != version
        assert other.execute("PRAGMA user_version").fetchone() == (0,)
