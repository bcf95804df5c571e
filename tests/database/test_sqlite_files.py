"""An SQLite file is what it was: where it, or a file beside it, is another one, nothing is committed or read."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from tests.support.poison import report
from worker.processing.batches import process_messages
from worker.store.database import Database
from worker.store.errors import Unreachable

COUNT = text("SELECT count(*) FROM operations")


def removed(file: Path) -> None:
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()


def replaced(file: Path) -> None:
    kept = file.read_bytes()
    removed(file)
    file.write_bytes(kept)


def without_its_log(file: Path) -> None:
    Path(f"{file}-wal").unlink()


def without_its_memory(file: Path) -> None:
    Path(f"{file}-shm").unlink()


CHANGES = [removed, replaced, without_its_log, without_its_memory]


@pytest.mark.parametrize("change", CHANGES)
async def test_nothing_is_committed_or_read_where_the_files_are_others(
    sqlite_database: Database, change: Callable[[Path], None]
) -> None:
    file = Path(sqlite_database.url.database or "")
    await process_messages(sqlite_database, [report(uuid4())])

    async def change_within_a_transaction() -> None:
        async with sqlite_database.write() as connection:
            await connection.execute(COUNT)
            change(file)

    with pytest.raises(Unreachable, match="was removed, renamed or replaced"):
        await change_within_a_transaction()
    if change is removed:
        with pytest.raises(Unreachable, match="is gone"):
            async with sqlite_database.read() as connection:
                await connection.execute(COUNT)
        with pytest.raises(Unreachable):
            await process_messages(sqlite_database, [report(uuid4())], patience=0.1)
        assert not list(file.parent.glob(f"{file.name}*"))
    else:  # what is there now is used
        await process_messages(sqlite_database, [report(uuid4())], patience=5)


async def test_nothing_is_read_from_a_file_that_was_removed(sqlite_database: Database) -> None:
    await process_messages(sqlite_database, [report(uuid4())])
    removed(Path(sqlite_database.url.database or ""))
    with pytest.raises(Unreachable):
        async with sqlite_database.read() as connection:
            await connection.execute(COUNT)
