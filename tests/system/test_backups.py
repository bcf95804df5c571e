"""The pages' commands for backup and restore: taken beside a worker, restored, and made whole by sending again."""

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.support.brokering import eventually
from tests.support.command import Deviceops
from tests.support.databases import NewDatabase, Stored, in_a_thread, read
from tests.support.documents import block, run
from worker.store.database import Database

PAGE = "deploy/operating.md"
FLEET = ("--devices", "60", "--disorder", "0.2", "--duplicates", "0.1", "--early", "0.1", "--malformed", "0.05")


@pytest.fixture
def on_postgresql(new_postgresql_database: NewDatabase, tmp_path: Path) -> Deviceops:
    """The command with a PostgreSQL whose URL libpq's own programs take too."""
    url = make_url(new_postgresql_database()).set(drivername="postgresql").render_as_string(hide_password=False)
    return Deviceops(tmp_path, {"database_url": url})


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Deviceops:
    """The command with the database that is the default one in its working directory."""
    return Deviceops(tmp_path, {"database_url": f"sqlite:///{tmp_path / 'deviceops.db'}"})


def state(url: str) -> dict[str, Any]:
    """What a database says of operations, devices, and what was rejected: all that does not depend on when."""

    async def everything() -> Stored:
        driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
        database = Database(make_url(url).set(drivername=driver))
        try:
            return await read(database)
        finally:
            await database.close()

    stored = in_a_thread(everything())
    return {
        "operations": {id_: (each.state, each.counters) for id_, each in stored.operations.items()},
        "devices": {
            id_: (device.state, device.dispatched)
            for each in stored.operations.values()
            for id_, device in each.devices.items()
        },
        "dead letters": stored.dead_letters,
    }


@contextmanager
def worker(deviceops: Deviceops) -> Iterator[subprocess.Popen[str]]:
    """A process that applies what it is fed, as it comes, and in the end is killed."""
    with deviceops.start("ingest", "-", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def feed(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stdin is not None
    process.stdin.writelines(lines)
    process.stdin.flush()


def assert_sending_again_makes_a_restored_database_whole(
    deviceops: Deviceops, elsewhere: Deviceops, backup: str, restore: str
) -> None:
    url = deviceops.settings["database_url"]
    lines = elsewhere.out("simulate", *FLEET).splitlines(keepends=True)
    half = len(lines) // 2
    states = []
    for some in (lines[:half], lines[half:]):
        elsewhere.out("ingest", "-", lines="".join(some))
        states.append(state(elsewhere.settings["database_url"]))
    partly, wholly = states
    deviceops.out("migrate")

    with worker(deviceops) as process:
        feed(process, lines[:half])
        eventually(lambda: state(url) == partly)
        run(backup, deviceops)
        feed(process, lines[half:])
        eventually(lambda: state(url) == wholly)
    told = run(restore, deviceops)

    assert "all counters agree" in told
    assert state(url) == partly != wholly
    random.Random(7).shuffle(lines)  # noqa: S311
    summary = deviceops.document("ingest", "-", lines="".join(lines))
    assert summary["duplicate"] > 0
    assert state(url) == wholly


def test_a_postgresql_backup_is_restored_and_sending_again_makes_it_whole(
    on_postgresql: Deviceops, deviceops_on_sqlite: Deviceops
) -> None:
    backup, restore = block(PAGE, "backup-postgresql"), block(PAGE, "restore-postgresql")
    assert_sending_again_makes_a_restored_database_whole(on_postgresql, deviceops_on_sqlite, backup, restore)


def test_an_sqlite_backup_is_restored_and_sending_again_makes_it_whole(
    on_sqlite: Deviceops, deviceops_on_sqlite: Deviceops
) -> None:
    backup = block(PAGE, "backup-sqlite") + block(PAGE, "backup-sqlite-compact")
    restore = block(PAGE, "restore-sqlite")
    assert_sending_again_makes_a_restored_database_whole(on_sqlite, deviceops_on_sqlite, backup, restore)
    compact = on_sqlite.with_settings(database_url="sqlite:///compact.db")
    assert compact.document("recount") == {"operations": 1, "drifted": []}
