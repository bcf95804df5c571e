"""An SQLite file that is locked, or whose disk is full, holds a worker up; no report is to blame."""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import make_url, text

from tests.faults.disks import SmallDisk, small_disk
from tests.faults.outages import PAUSED, assert_told_once, is_paused, said
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.support.databases import NewDatabase
from worker.store.database import Database


async def test_locked_by_another_process(
    trials: Trials, new_scene: NewScene, amqp_url: str, new_sqlite_database: NewDatabase
) -> None:
    url = new_sqlite_database()
    worker, ledger = await new_scene(amqp_url, url, batch_size=50)

    async def lock(random: Random) -> None:
        with closing(sqlite3.connect(make_url(url).database or "", timeout=10, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await is_paused(worker, ledger, random)

    await trials.endure("SQLite file locked", lock, ledger, worker)
    assert_told_once(worker.log, trials.tries)
    assert all("locked" in line["error"] for line in said(worker.log, PAUSED)), worker.log


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """Room for an SQLite file and a little more."""
    with small_disk(megabytes=8) as disk:
        yield disk


async def test_disk_full(
    trials: Trials, new_scene: NewScene, amqp_url: str, disk: SmallDisk, new_sqlite_database: NewDatabase
) -> None:
    url = make_url(new_sqlite_database())
    url = url.set(database=str(shutil.move(url.database or "", disk.folder)))
    worker, ledger = await new_scene(amqp_url, str(url), batch_size=50)

    async def fill(random: Random) -> None:
        await asyncio.to_thread(disk.fill)
        await is_paused(worker, ledger, random)
        disk.make_room()

    await trials.endure("disk full under SQLite", fill, ledger, worker)
    assert_told_once(worker.log, trials.tries)
    assert all("full" in line["error"] for line in said(worker.log, PAUSED)), worker.log


async def test_files_that_are_removed_take_no_report_with_them(
    trials: Trials, new_scene: NewScene, amqp_url: str, new_sqlite_database: NewDatabase, tmp_path: Path
) -> None:
    url = new_sqlite_database()
    file = Path(make_url(url).database or "")
    worker, ledger = await new_scene(amqp_url, url, batch_size=50)

    async def remove(random: Random) -> None:
        aside = tmp_path / "aside"
        aside.mkdir()
        for each in file.parent.glob(f"{file.name}*"):
            each.rename(aside / each.name)
        await is_paused(worker, ledger, random)
        await asyncio.sleep(1)  # with tries to connect
        assert not list(file.parent.glob(f"{file.name}*"))
        for each in aside.iterdir():
            each.rename(file.parent / each.name)
        aside.rmdir()

    await trials.endure("SQLite file removed, and restored", remove, ledger, worker)
    assert_told_once(worker.log, trials.tries)
    assert all("removed" in line["error"] for line in said(worker.log, PAUSED)), worker.log


async def test_a_transaction_that_is_cancelled_twice_leaves_no_task_that_never_ends(
    sqlite_database: Database,
) -> None:
    """The first time its connection is closed, behind the statement; the second time it is not waited for."""
    endless = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) SELECT max(i) FROM n"
    )
    has_begun = asyncio.Event()

    async def wait_for_a_statement() -> None:
        async with sqlite_database.write() as connection:
            has_begun.set()
            await connection.execute(endless)

    before = asyncio.all_tasks()
    transaction = asyncio.create_task(wait_for_a_statement())
    await has_begun.wait()
    transaction.cancel()
    async with asyncio.timeout(10):
        while not (ending := asyncio.all_tasks() - before - {transaction}):  # noqa: ASYNC110  # its closing begins
            await asyncio.sleep(0)
    transaction.cancel()
    with suppress(asyncio.CancelledError):
        await transaction
    for task in ending:
        task.cancel()  # as at the end of a process
    _, waiting = await asyncio.wait(ending, timeout=10)
    assert not waiting
