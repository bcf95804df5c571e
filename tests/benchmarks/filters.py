"""What filters cost among a million device operations, what histories cost pages, and exports of all rows."""

import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
from sqlalchemy import make_url

from statemachine import State
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Stage, plain
from tests.support.command import Deviceops
from tests.support.serving import OPERATIONS, Server, serving
from worker.model.causes import cause_of_reason
from worker.model.state_times import entry
from worker.simulate import START
from worker.store.database import Database
from worker.store.recount import find_drift, fix_drift

FEW = 1_000
PAGE = 20
OF_FEW, OF_MANY, OF_REPEATED, OF_NONE = (UUID(int=number << 96) for number in range(1, 5))
"""Each begins otherwise, as the ids of their device operations do."""
REASONS = [f"no route to 10.0.0.1 in step {step}" for step in "abcde"]

OPERATION = """
INSERT INTO operations (id, operation_type, state, created_at, updated_at) VALUES ($1, 'CONVERGE', '', $2, $2)
"""
# Four in ten have failed, half of them with one of eight codes. What is rare fills a page of a thousand still.
DEVICE_OPERATIONS = """
INSERT INTO device_operations (id, operation_id, device_id, state, dispatched, reason, code, cause, service_id,
    created_at, updated_at, reached, registered_at, reported_at)
SELECT (left(CAST($1::uuid AS text), 8) || substr(gen_random_uuid()::text, 9))::uuid, $1::uuid, gen_random_uuid(),
    CASE WHEN has_failed THEN 60 ELSE 50 END, true, CASE WHEN has_failed THEN ($4::text[])[1 + why] ELSE '' END,
    code, CASE WHEN has_failed THEN coalesce(code, ($5::text[])[1 + why]) END,
    CASE WHEN n % 40 = 7 THEN 'rare-service' WHEN n % 7 = 3 THEN 'probe-service' ELSE 'drift-service' END,
    $3::timestamptz + n * interval '1 millisecond', $3::timestamptz + (n * 7919 % $2) * interval '1 millisecond',
    CASE WHEN has_failed THEN $6::text ELSE $7::text END, 0, 0
FROM (
    SELECT n, n % 5 < 2 AS has_failed, (n / 5 % 5)::integer AS why,
        CASE WHEN n % 5 = 0 THEN 'E' || n / 5 % 8 END AS code
    FROM generate_series(1, $2::bigint) AS n
) AS rows
"""
REPEATED = """
INSERT INTO device_operation_activity
    (device_operation_id, report_id, state, verdict, created_at, service_id, reason)
SELECT id, 'r' || n, 50, 'repeated', created_at, 'drift-service', ''
FROM device_operations, generate_series(1, $2::bigint) AS n WHERE operation_id = $1
"""


async def filters(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """Milliseconds of pages by filter, of few and of many device operations; seconds and memory of exports."""
    steps.begin(4)
    steps.next(f"filling a database with {sizes.filtered:,} device operations")
    with stage.database() as url:
        await _fill(url, sizes)
        deviceops = Deviceops(stage.directory, {"database_url": url, "log_level": "WARNING"})
        with serving(deviceops.with_settings(log_level="INFO")) as server, server.client() as api:
            steps.next("pages by filter")
            paths = {name: (_path(OF_FEW, query), _path(OF_MANY, query)) for name, query in _queries().items()}
            paths["groups by cause"] = (f"{OPERATIONS}{OF_FEW}/reasons/", f"{OPERATIONS}{OF_MANY}/reasons/")
            taken = _milliseconds(api, paths, sizes.calls)
            steps.next("pages with long histories")
            long, none = _path(OF_REPEATED, {}), _path(OF_NONE, {})
            histories = _milliseconds(api, {"": (none, long)}, sizes.calls)[""]
            steps.next("exports")
            exports = {
                "HTTP, CSV": _over_http(api, server, "text/csv", sizes.filtered),
                "HTTP, JSON lines": _over_http(api, server, "application/x-ndjson", sizes.filtered),
                "command, CSV": _by_command(deviceops, "csv"),
                "command, JSON lines": _by_command(deviceops, "jsonl"),
            }
    few, many = str(FEW), str(sizes.filtered)
    page = {"none": _percentiles(histories[0]), f"{sizes.repeats} a device": _percentiles(histories[1])}
    quiet, busy = page.values()
    return {
        "milliseconds": {
            name: {few: statistics.median(of_few), many: statistics.median(of_many)}
            for name, (of_few, of_many) in taken.items()
        },
        "page_with_repeated_reports_ms": page,
        "exports": exports,
        "ratios": {
            **{
                f"{name} {many}/{few}": statistics.median(of_many) / statistics.median(of_few)
                for name, (of_few, of_many) in taken.items()
            },
            "page with repeated reports p50": busy["p50"] / quiet["p50"],
            "page with repeated reports p99": busy["p99"] / quiet["p99"],
        },
    }


def _queries() -> dict[str, dict[str, str]]:
    """The filters, each alone and some together; all of them find more than a page of a thousand rows."""
    after = f"{(START + timedelta(milliseconds=100)).isoformat()[:-6]}Z"
    return {
        "no filter": {},
        "states": {"state": "FAILURE,TIMEOUT"},
        "service": {"service_id": "drift-service"},
        "rare service": {"service_id": "rare-service"},
        "code": {"code": "E1"},
        "reason": {"reason": REASONS[0]},
        "period": {"updated_after": after},
        "service, state and period": {"service_id": "drift-service", "state": "FAILURE", "updated_after": after},
        "code and service": {"code": "E1", "service_id": "drift-service"},
        "latest first": {"service_id": "probe-service", "ordering": "-updated_at"},
        "by cursor": {"service_id": "drift-service", "cursor": ""},
    }


async def _fill(url: str, sizes: Sizes) -> None:
    causes = [cause_of_reason(reason) for reason in REASONS]
    failed, succeeded = (
        "".join(entry(each, START) for each in (State.CREATED, State.DISPATCHED, state))
        for state in (State.FAILURE, State.SUCCESS)
    )
    connection = await asyncpg.connect(plain(url))
    try:
        for operation, number in ((OF_FEW, FEW), (OF_MANY, sizes.filtered), (OF_REPEATED, PAGE), (OF_NONE, PAGE)):
            await connection.execute(OPERATION, operation, START)
            await connection.execute(
                DEVICE_OPERATIONS, operation, number, START, REASONS, causes, failed, succeeded
            )
        await connection.execute(REPEATED, OF_REPEATED, sizes.repeats)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
    database = Database(make_url(url))
    _, drifted = await find_drift(database)
    await fix_drift(database, drifted)
    await database.close()


def _path(operation: UUID, query: Mapping[str, str]) -> str:
    return str(httpx.URL(f"{OPERATIONS}{operation}/devices/", params=query))


def _milliseconds(
    api: httpx.Client, paths: Mapping[str, Sequence[str]], calls: int
) -> dict[str, tuple[list[float], ...]]:
    """Milliseconds of calls in turn, by what they read."""
    taken: dict[str, tuple[list[float], ...]] = {name: tuple([] for _ in each) for name, each in paths.items()}
    for number in range(calls + 5):
        for name, each in paths.items():
            for path, times in list(zip(each, taken[name], strict=True))[:: -1 if number % 2 else 1]:
                started = time.perf_counter()
                response = api.get(path)
                if number >= 5:  # the first ones fill caches
                    times.append((time.perf_counter() - started) * 1_000)
                assert response.status_code == httpx.codes.OK, response.text
                assert response.json()["content"]["results"], path
    return taken


def _percentiles(taken: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(taken, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


def _over_http(api: httpx.Client, server: Server, media_type: str, rows: int) -> dict[str, float]:
    started, size = time.perf_counter(), 0
    with api.stream("GET", _path(OF_MANY, {}), headers={"Accept": media_type}) as response:
        assert response.headers["X-Row-Count"] == str(rows)
        for chunk in response.iter_raw():
            size += len(chunk)
    return {"seconds": time.perf_counter() - started, "peak_mb": _peak(server.process.pid) / 1e6, "mb": size / 1e6}


def _by_command(deviceops: Deviceops, format_: str) -> dict[str, float]:
    path = deviceops.directory / f"exported.{format_}"
    started = time.perf_counter()
    command = ("devices", str(OF_MANY), "--format", format_, "--output", str(path))
    process = deviceops.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    seconds, size = time.perf_counter() - started, path.stat().st_size
    path.unlink()
    return {"seconds": seconds, "peak_mb": usage.ru_maxrss * 1_024 / 1e6, "mb": size / 1e6}


def _peak(pid: int) -> int:
    """The most bytes of a process that were in memory."""
    [line] = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1_024
