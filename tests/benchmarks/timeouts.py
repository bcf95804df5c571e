"""How soon what is over becomes TIMEOUT, among a million device operations that are not settled.

Some fall due in each second, and then many at once beside running traffic. The longest overdue are taken first, so
an observer that asks, twenty times a second, since when the first one is overdue knows how long each has taken.
"""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import make_url

from statemachine import State
from tests.benchmarks.consuming import Workers, running
from tests.benchmarks.latency import Offered, announce, no_collector, percentiles, publish, watch
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Scene, Stage
from worker.model.identity import device_operation_id
from worker.model.state_times import entry
from worker.simulate import START
from worker.store.database import Database
from worker.store.recount import find_drift, fix_drift

DEVICES = 10_000
"""Of one operation."""
TIMEOUT = 36_000
"""Seconds after the registration."""
TO_SET = 4_000
"""Device operations whose moments are set in a second, at least."""
RESOLUTION = 0.05
PATIENCE = 120

OPERATION = """
INSERT INTO operations (id, operation_type, state, created_at, updated_at, timeouts)
VALUES ($1, 'CONVERGE', '', $2, $2, $3)
"""
COLUMNS = (
    *("id", "operation_id", "device_id", "state", "dispatched", "reason", "created_at", "updated_at", "reached"),
    *("registered_at", "reported_at", "expires_at"),
)
CLOCK = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
SET_DUE = """
UPDATE device_operations SET expires_at = due.at, registered_at = due.at - $3
FROM unnest($1::uuid[], $2::bigint[]) AS due (id, at) WHERE device_operations.id = due.id
"""
FIRST = "SELECT expires_at FROM device_operations WHERE expires_at IS NOT NULL ORDER BY expires_at LIMIT 1"
TIMED_OUT = """
SELECT count(*), count(DISTINCT device_operation_id) FROM device_operation_activity WHERE service_id = 'deviceops'
"""


async def timeouts(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """Seconds from the moment until TIMEOUT, and reports' latency before and meanwhile; medians of rounds."""
    steps.begin(1 + 2 * sizes.rounds)
    seeds = count(5_000)
    rounds: list[dict[str, Any]] = []
    async with stage.scene() as scene:
        connection = await asyncpg.connect(scene.postgresql_url)
        steps.next(f"filling a database with {sizes.devices[-1]:,} device operations")
        unsettled = await _fill(scene, connection, sizes.devices[-1])
        async with running(scene, settings={"timeout_grace": "0"}) as workers:
            await stage.broker.consumed_by(scene.topology, 1)
            for number in range(1, sizes.rounds + 1):
                steps.next(f"round {number}: {sizes.due:,} due a second")
                steady = await _steadily(connection, unsettled, sizes)
                steps.next(f"round {number}: {sizes.due_at_once:,} due at once")
                at_once = await _at_once(stage, scene, connection, unsettled, sizes, seeds)
                rounds.append({"steady": steady, **at_once})
            await _check(scene, connection, workers, sizes)
        await connection.close()

    def median(what: str, name: str) -> float:
        values: list[float] = [each[what][name] for each in rounds]
        return statistics.median(values)

    names = ("p50", "p99", "longest")
    p99 = [each["reports"] for each in rounds]
    ratios = [each["meanwhile"]["p99"] / each["before"]["p99"] for each in p99 if all(each.values())]
    return {
        "seconds_until_timeout": {
            f"{sizes.due:,} a second": {name: median("steady", name) for name in names},
            f"{sizes.due_at_once:,} at once": {name: median("at_once", name) for name in names},
        },
        "milliseconds_of_reports": {
            name: None
            if not all(each[name] for each in p99)
            else statistics.median(each[name]["p99"] for each in p99)
            for name in ("before", "meanwhile")
        },
        "ratios": {"report p99 meanwhile/before": statistics.median(ratios)} if len(ratios) == len(rounds) else {},
        "rounds": rounds,
    }


async def _fill(scene: Scene, connection: asyncpg.Connection, size: int) -> list[UUID]:
    """The device operations that are there, none of which is settled, operation by operation."""
    random = Random(size)
    now = await connection.fetchval(CLOCK)
    expires_at = now + 1_000 * TIMEOUT
    ids: list[UUID] = []
    while len(ids) < size:
        operation = UUID(int=random.getrandbits(128), version=4)
        await connection.execute(OPERATION, operation, START, f'{{"total":{TIMEOUT}}}')
        devices = [UUID(int=random.getrandbits(128), version=4) for _ in range(min(DEVICES, size - len(ids)))]
        created = State.CREATED, False, "", START, START, entry(State.CREATED, START)
        rows = [
            (device_operation_id(operation, device), operation, device, *created, now, now, expires_at)
            for device in devices
        ]
        await connection.copy_records_to_table("device_operations", records=rows, columns=COLUMNS)
        ids += [row[0] for row in rows]
    database = Database(make_url(scene.database_url))
    try:
        _, drifted = await find_drift(database)
        await fix_drift(database, drifted)
    finally:
        await database.close()
    await connection.execute("DELETE FROM operation_tasks")  # of the recount; everything is armed
    await connection.execute("VACUUM ANALYZE")
    return ids


async def _steadily(connection: asyncpg.Connection, unsettled: list[UUID], sizes: Sizes) -> Mapping[str, float]:
    number = round(sizes.due * sizes.due_seconds)
    begin = await _soon(connection, number)
    moments = [begin + round(1_000 * index / sizes.due) for index in range(number)]
    await _set_due(connection, unsettled, moments)
    return _of(await _lags(connection, moments))


async def _at_once(
    stage: Stage,
    scene: Scene,
    connection: asyncpg.Connection,
    unsettled: list[UUID],
    sizes: Sizes,
    seeds: "count[int]",
) -> Mapping[str, Any]:
    beside = await asyncpg.connect(scene.postgresql_url)
    rate = sizes.reports_beside
    try:
        offered = [Offered.at(rate, sizes.seconds * times, next(seeds)) for times in (2, 4)]
        for each in offered:
            await announce(stage, scene, beside, each)
        with no_collector():
            earlier = await _traffic(stage, scene, beside, offered[0])
            due_at = await _soon(connection, sizes.due_at_once)
            await _set_due(connection, unsettled, [due_at] * sizes.due_at_once)
            wait = (due_at - await connection.fetchval(CLOCK)) / 1_000
            assert wait > 0, "it took too long to set the moments"
            traffic = asyncio.create_task(_traffic(stage, scene, beside, offered[1], wait))
            lags = await _lags(connection, [due_at] * sizes.due_at_once)
            later = await traffic
    finally:
        await beside.close()
    found = _of(lags)
    before = [took for _, took in earlier or ()]
    meanwhile = [took for since, took in later or () if since <= max(found["longest"], 1)]
    return {
        "at_once": found,
        "reports": {"before": percentiles(before), "meanwhile": percentiles(meanwhile)},
    }


async def _traffic(
    stage: Stage, scene: Scene, connection: asyncpg.Connection, offered: Offered, wait: float = 0
) -> Sequence[tuple[float, float]] | None:
    """When each watched report was due, in seconds after the first, and how long it took."""
    start = time.monotonic() + max(wait, 0.1)
    publishing = asyncio.create_task(publish(stage, scene, offered, start))
    try:
        return await watch(connection, offered, start, PATIENCE)
    finally:
        publishing.cancel()
        await asyncio.wait([publishing])


async def _soon(connection: asyncpg.Connection, number: int) -> int:
    """A moment after the time that it takes to set this number, by the database's clock."""
    clock: int = await connection.fetchval(CLOCK)
    return clock + 2_000 + 1_000 * number // TO_SET


async def _set_due(connection: asyncpg.Connection, unsettled: list[UUID], moments: Sequence[int]) -> None:
    """Have the next ones fall due at these moments, in an order drawn by lot."""
    ids = [unsettled.pop() for _ in moments]
    Random(len(unsettled)).shuffle(ids)
    await connection.execute(SET_DUE, ids, moments, 1_000 * TIMEOUT)


async def _lags(connection: asyncpg.Connection, moments: Sequence[int]) -> Sequence[float]:
    """Return once everything that is due at these moments, which ascend, is timed out: after how long."""
    lags: list[float] = []
    numbers = Counter(moments)
    to_come = sorted(numbers, reverse=True)
    first = await connection.prepare(FIRST)
    clock = await connection.prepare(CLOCK)
    deadline = time.monotonic() + PATIENCE + (moments[-1] - moments[0]) / 1_000
    while to_come:
        assert time.monotonic() < deadline, f"{len(moments) - len(lags):,} of {len(moments):,} are not timed out"
        found, now = await first.fetchval(), await clock.fetchval()
        while to_come and (found is None or to_come[-1] < found) and to_come[-1] <= now:
            moment = to_come.pop()
            lags += [(now - moment) / 1_000] * numbers[moment]
        await asyncio.sleep(RESOLUTION)
    return lags


def _of(lags: Sequence[float]) -> Mapping[str, float]:
    cuts = statistics.quantiles(lags, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "longest": max(lags)}


async def _check(scene: Scene, connection: asyncpg.Connection, workers: Workers, sizes: Sizes) -> None:
    """Fail unless each was timed out once, and the counters equal a recount."""
    await workers.stop()
    wanted = sizes.rounds * (round(sizes.due * sizes.due_seconds) + sizes.due_at_once)
    rows, device_operations = await connection.fetchrow(TIMED_OUT)
    assert rows == device_operations == wanted, f"{rows:,} timeouts of {device_operations:,}, expected {wanted:,}"
    database = Database(make_url(scene.database_url))
    try:
        _, drifted = await find_drift(database)
    finally:
        await database.close()
    assert not drifted, f"counters differ from a recount: {drifted[:3]}"
