"""A page costs the same of an operation with a thousand device operations and of one with a million."""

import asyncio
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.paging import signed_in
from tests.support.serving import DEVICES, OPERATIONS, serving
from worker.pages.renderings import LIFETIME
from worker.store.pagination import Cursor, Position

FEW = 1_000
OPERATION_OF_FEW, OPERATION_OF_MANY = UUID(int=1), UUID(int=2)
ROUNDS = 100
FACTOR = 2
"""How many times as long as of few a call may take of many, in the median: more than noise makes of one."""
WEB_FACTOR = 1.2
"""The same of the web page, of which all is rendered before the first row is sent."""

DEVICE_OPERATIONS = """
INSERT INTO device_operations (id, operation_id, device_id, state, dispatched, reason, created_at, updated_at,
    registered_at, reported_at)
SELECT gen_random_uuid(), $1, gen_random_uuid(), (ARRAY[40, 50, 50, 50, 50, 50, 50, 60])[1 + n % 8], true, '',
    now() - n * interval '1 millisecond', now() - (n::bigint * 7919 % 1000000) * interval '1 millisecond', 0, 0
FROM generate_series(1, $2::integer) AS n
"""
ACTIVITY = """
INSERT INTO device_operation_activity
    (device_operation_id, report_id, state, verdict, created_at, service_id, reason)
SELECT id, 'r' || n, (ARRAY[10, 30, state])[n], 'applied', created_at + n * interval '1 second', 'a service', ''
FROM device_operations, generate_series(1, 3) AS n WHERE operation_id = $1
"""
SCANS = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'device_operations'"


async def fill(url: str, sizes: dict[UUID, int]) -> None:
    """Device operations with three entries of history each."""
    connection = await asyncpg.connect(url)
    try:
        for operation, size in sizes.items():
            await connection.execute(DEVICE_OPERATIONS, operation, size)
            await connection.execute(ACTIVITY, operation)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


async def scans(url: str) -> tuple[int, int]:
    """How often the table was read from end to end, and by an index."""
    connection = await asyncpg.connect(url)
    try:
        return tuple(await connection.fetchrow(SCANS))
    finally:
        await connection.close()


def calls(api: httpx.Client, operation: UUID, size: int) -> dict[str, str]:
    """The calls to measure, by what they are."""
    middle = Cursor(Position(0, datetime.now(UTC) - size / 2 * timedelta(milliseconds=1), UUID(int=0)))
    own = f"{OPERATIONS}{operation}/"
    pages = f"{own}devices/"
    device = api.get(pages).json()["content"]["results"][0]["device_id"]
    return {
        "first page": pages,
        "page of a state, the latest first": f"{pages}?state=FAILURE&ordering=-updated_at",
        "page by state": f"{pages}?ordering=state",
        "page at a cursor in the middle": f"{pages}?cursor={middle}",
        "operation": own,
        "a device's operations": f"/v0/devices/{device}/operations/",
        "one device operation": f"{pages}{DEVICES[0]}/",
    }


def web_pages(operation: UUID) -> dict[str, str]:
    """Pages to measure, by what they are."""
    page = f"/operations/{operation}"
    return {
        "web page": page,
        "web page of a state, the latest first": f"{page}?state=FAILURE&ordering=-updated_at",
        "live part: how it goes": f"{page}/going",
        "live part: device operations": f"{page}/devices",
    }


def milliseconds(api: httpx.Client, path: str) -> float:
    started = time.perf_counter()
    assert api.get(path).status_code == 200
    return (time.perf_counter() - started) * 1_000


@pytest.mark.timeout(900)
@pytest.mark.alone
def test_a_page_of_a_million_costs_what_a_page_of_a_thousand_costs(
    new_postgresql_database: Callable[[], str], tmp_path: Path, full: bool
) -> None:
    """A million with --full, 50,000 every day."""
    database_url = new_postgresql_database()
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    sizes = {OPERATION_OF_FEW: FEW, OPERATION_OF_MANY: 1_000_000 if full else 50_000}
    deviceops = Deviceops(tmp_path, {"database_url": database_url})
    measured: dict[tuple[str, UUID], list[float]] = {}
    with serving(deviceops) as server, server.client() as api, signed_in(server) as visitor:
        for operation in sizes:  # a device operation of each has the id that its pair gives it
            announcement = {"id": str(operation), "operation_type": "CONVERGE", "device_ids": DEVICES[:1]}
            assert api.post(OPERATIONS, json=announcement).status_code == 201
        asyncio.run(fill(url, sizes))
        deviceops.out("recount", "--fix")
        paths = {operation: calls(api, operation, size) for operation, size in sizes.items()}
        web = {operation: web_pages(operation) for operation in sizes}
        before = asyncio.run(scans(url))
        for number in range(ROUNDS + 5):
            began = time.monotonic()
            for operation in sizes:
                for name, path in (paths[operation] | web[operation]).items():
                    taken = milliseconds(visitor if name in web[operation] else api, path)
                    if number >= 5:  # the first ones fill caches
                        measured.setdefault((name, operation), []).append(taken)
            time.sleep(max(0, began + LIFETIME - time.monotonic()))  # live parts are rendered anew each time
        time.sleep(2)  # PostgreSQL tells its statistics with a delay
        after = asyncio.run(scans(url))

    assert after[0] == before[0], "a call read the table from end to end"
    assert after[1] - before[1] > ROUNDS
    for name in paths[OPERATION_OF_FEW] | web[OPERATION_OF_FEW]:
        few, many = (statistics.quantiles(measured[name, operation], n=100) for operation in sizes)
        print(f"{name}: p50 {few[49]:.1f} and {many[49]:.1f} ms, p99 {few[98]:.1f} and {many[98]:.1f} ms")  # noqa: T201
        assert many[49] < (WEB_FACTOR if name in web[OPERATION_OF_FEW] else FACTOR) * few[49], name
