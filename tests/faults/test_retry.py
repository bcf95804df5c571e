"""A retry that is killed has retried everything or nothing, and the same again makes it whole."""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, make_url, select, update

from statemachine import State
from tests.faults.sabotage import BEFORE_COMMIT
from tests.faults.trials import Result, Trials
from tests.faults.workers import ROOT
from tests.support.command import TIMEOUT, Deviceops
from tests.support.databases import in_a_thread
from tests.support.sending import ANNOUNCEMENT, announcement_body, message, process
from worker.store.database import Database
from worker.store.recount import find_drift, fix_drift
from worker.store.tables import device_operations, operations

OPERATION = UUID(int=0xABC)
DEVICES = 10_000
KILLS = 3
"""At random moments, for each try."""


@pytest.fixture
def failed(deviceops: Deviceops) -> Deviceops:
    """The command on a database with an operation of which everything has failed."""
    in_a_thread(_fail(deviceops.settings["database_url"]))
    return deviceops


async def _fail(url: str) -> None:
    database = Database(make_url(url))
    announcement = announcement_body(OPERATION, [uuid4() for _ in range(DEVICES)])
    await process(database, [[message(announcement, ANNOUNCEMENT)]])
    async with database.write() as connection:
        await connection.execute(update(device_operations).values(state=State.FAILURE))
    _, drifted = await find_drift(database)
    await fix_drift(database, drifted)
    await database.close()


async def _look(url: str, operation: UUID) -> tuple[int, int, int]:
    """What there is of an operation: itself, its device operations, and its last change."""
    database = Database(make_url(url))
    async with database.read() as connection:
        query = select(operations.c.sequence).where(operations.c.id == operation)
        sequences = (await connection.execute(query)).scalars().all()
        column = device_operations.c
        counting = select(func.count()).select_from(device_operations).where(column.operation_id == operation)
        devices = (await connection.execute(counting)).scalar_one()
    await database.close()
    return len(sequences), devices, sum(sequences)


async def _drift(url: str) -> list[object]:
    database = Database(make_url(url))
    _, drifted = await find_drift(database)
    await database.close()
    return list(drifted)


class Retrying:
    """Processes that retry, and obey the test."""

    def __init__(self, deviceops: Deviceops) -> None:
        self._folder = deviceops.directory / "sabotage"
        self._folder.mkdir()
        self._environment: Mapping[str, str] = {
            **deviceops.variables,
            "PYTHONPATH": str(ROOT),
            "SABOTAGE": str(self._folder),
        }
        self._directory: Path = deviceops.directory

    def start(self, new: UUID) -> subprocess.Popen[bytes]:
        """Begin a retry."""
        command = [sys.executable, "-m", "tests.faults.sabotaged", "retry", str(OPERATION), "--as", str(new)]
        return subprocess.Popen(command, cwd=self._directory, env=self._environment, stdout=subprocess.DEVNULL)

    def killed_after(self, new: UUID, seconds: float) -> None:
        """Start a retry, and kill it after this delay in seconds unless it has ended."""
        with self.start(new) as process:
            time.sleep(seconds)
            process.kill()

    def killed_before_commit(self, new: UUID) -> int:
        """Retry, and be killed when all is done but the commit; returns the exit code."""
        (self._folder / BEFORE_COMMIT).write_text("die 0")
        return self.start(new).wait(TIMEOUT)

    def whole(self, new: UUID) -> float:
        """Retry without a fault; returns the seconds that it took."""
        began = time.monotonic()
        assert self.start(new).wait(TIMEOUT) == 0
        return time.monotonic() - began


def test_a_retry_that_is_killed_is_all_or_nothing(trials: Trials, failed: Deviceops) -> None:
    url, retrying = failed.settings["database_url"], Retrying(failed)
    usual = retrying.whole(uuid4())
    result = Result("retry killed at random, three times, and before commit")
    for number in range(trials.tries):
        seed = f"{trials.seed}/{number}"
        print(f"seed {seed}, {usual:.1f} s")  # noqa: T201
        random = Random(seed)  # noqa: S311
        new = UUID(int=random.getrandbits(128), version=4)
        assert retrying.killed_before_commit(new) == -signal.SIGKILL
        assert (found := in_a_thread(_look(url, new))) == (0, 0, 0), f"seed {seed}: {found}"
        for _ in range(KILLS):
            retrying.killed_after(new, random.uniform(usual / 3, usual))
            found = in_a_thread(_look(url, new))
            assert found in ((0, 0, 0), (1, DEVICES, 1)), f"seed {seed}: {found}"

        result.seconds.append(retrying.whole(new))

        found = in_a_thread(_look(url, new))
        assert found == (1, DEVICES, 1), f"seed {seed}: {found}"
        result.tried += 1
        trials.record(result)
    assert in_a_thread(_drift(url)) == []
