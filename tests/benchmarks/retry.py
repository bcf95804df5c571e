"""How long a retry takes: one in ten of an operation's device operations have failed, and become another one."""

import asyncio
import json
import statistics
import time
from collections.abc import Mapping
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import make_url

from statemachine import State
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Scene, Stage
from tests.support.command import Deviceops
from worker.model.identity import device_operation_id
from worker.model.state_times import entry
from worker.simulate import START
from worker.store.database import Database
from worker.store.recount import find_drift, fix_drift

EVERY = 10
"""Device operations for each failed one."""
CHUNK = 50_000
OPERATION = """
INSERT INTO operations (id, operation_type, state, created_at, updated_at) VALUES ($1, 'CONVERGE', '', $2, $2)
"""
COLUMNS = (
    *("id", "operation_id", "device_id", "state", "dispatched", "reason", "created_at", "updated_at", "reached"),
    *("registered_at", "reported_at"),
)


async def retry(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """Seconds that `deviceops retry` takes for a tenth of the device operations; the median of rounds."""
    steps.begin(1 + sizes.rounds)
    size = sizes.devices[-1]
    rounds: list[float] = []
    async with stage.scene() as scene:
        database = Database(make_url(scene.database_url))
        deviceops = Deviceops(scene.directory, {"database_url": scene.database_url})
        try:
            steps.next(f"filling a database with {size:,} device operations")
            first = await _fill(scene, database, size)
            for number in range(1, sizes.rounds + 1):
                steps.next(f"round {number}: {size // EVERY:,} device operations")
                new = UUID(int=Random(f"round {number}").getrandbits(128), version=4)
                began = time.monotonic()
                with deviceops.start("retry", str(first), "--as", str(new), "--json") as process:
                    out, errors = await asyncio.to_thread(process.communicate)
                rounds.append(time.monotonic() - began)
                assert process.returncode == 0, errors
                assert json.loads(out)["device_operations"] == size // EVERY, out
            await _check(scene, database)
        finally:
            await database.close()
    seconds = statistics.median(rounds)
    return {
        "device_operations": {"in all": size, "retried": size // EVERY},
        "seconds": {"retry": seconds},
        "rates": {"device operations a second": size // EVERY / seconds},
        "rounds": rounds,
    }


async def _fill(scene: Scene, database: Database, size: int) -> UUID:
    """An operation of the given size; one device operation in `EVERY` has failed."""
    random = Random(size)
    operation = UUID(int=random.getrandbits(128), version=4)
    created, failed = entry(State.CREATED, START), entry(State.FAILURE, START)
    connection = await asyncpg.connect(scene.postgresql_url)
    try:
        await connection.execute(OPERATION, operation, START)
        for start in range(0, size, CHUNK):
            rows = []
            for number in range(start, min(start + CHUNK, size)):
                device = UUID(int=random.getrandbits(128), version=4)
                has_failed = number % EVERY == 0
                state, reached = (State.FAILURE, created + failed) if has_failed else (State.CREATED, created)
                ids = device_operation_id(operation, device), operation, device
                rows.append((*ids, state, False, "", START, START, reached, 0, 0))
            await connection.copy_records_to_table("device_operations", records=rows, columns=COLUMNS)
        _, drifted = await find_drift(database)
        await fix_drift(database, drifted)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
    return operation


async def _check(scene: Scene, database: Database) -> None:
    """Fail unless the counters equal a recount, and each new operation has told one change."""
    _, drifted = await find_drift(database)
    assert not drifted, f"counters differ from a recount: {drifted[:3]}"
    connection = await asyncpg.connect(scene.postgresql_url)
    try:
        sequences = await connection.fetch("SELECT sequence FROM operations WHERE resolved_device_count > 0")
        assert {row["sequence"] for row in sequences} == {1}
    finally:
        await connection.close()
