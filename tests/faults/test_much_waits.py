"""However many parked reports wait for what is announced, it takes little memory, and keeps nobody waiting."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import asyncpg
import httpx
import pytest
from aio_pika.abc import AbstractChannel
from sqlalchemy import func, insert, make_url, select

from tests.brokering import declared, eventually, send
from tests.command import Deviceops
from tests.databases import read
from tests.sending import ANNOUNCEMENT, announcement_body, report_body
from tests.serving import OPERATIONS, serving
from tests.watching import running
from worker.model.identity import device_operation_id
from worker.model.outcomes import Reason, Status
from worker.store.database import Database
from worker.store.tables import dead_letters, operations

OPERATION = UUID(int=0xABC)
JSON = {"Content-Type": "application/json"}
STATES = ("INITIATED", "DISPATCHED", "PROCESSING", "SUCCESS")
REPORTS, REPORTS_OF_CI = 40_000, 200_000
GROWTH = 100
"""MB beyond what the process has anyway, at most: with 200,000 reports at once it was a gigabyte."""
PATIENCE = 300
"""Seconds that all of it may take."""
LATEST = 1.0
"""Seconds that a probe or a call may take meanwhile."""


def devices(reports: int) -> list[UUID]:
    """The devices that so many reports are about."""
    return [uuid5(OPERATION, str(number)) for number in range(reports // len(STATES))]


def parked(reports: int) -> Iterator[dict[str, Any]]:
    """Rows of parked reports."""
    now = datetime.now(UTC)
    for state in STATES:
        for device in devices(reports):
            yield {
                "fingerprint": uuid4(),
                "reason": Reason.UNKNOWN_DEVICE_OPERATION,
                "detail": "it waits for the registration",
                "status": Status.OPEN,
                "attempts": 1,
                "received_at": now,
                "operation_id": OPERATION,
                "device_id": device,
                "service_id": "drift-service",
                "device_operation_id": device_operation_id(OPERATION, device),
                "report_id": state,
                "exchange": "",
                "routing_key": "",
                "properties": {},
                "headers": {},
                "body": json.dumps(report_body(OPERATION, device, state, report_id=state)).encode(),
            }


async def park(url: str, reports: int) -> None:
    """Have reports wait."""
    rows = list(parked(reports))
    if make_url(url).get_backend_name() == "postgresql":
        connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(False))
        records = [[json.dumps(each) if isinstance(each, dict) else each for each in row.values()] for row in rows]
        await connection.copy_records_to_table("dead_letters", records=records, columns=list(rows[0]))
        await connection.close()
        return
    database = Database(make_url(url))
    async with database.write() as connection:
        await connection.execute(insert(dead_letters), rows)
    await database.close()


def megabytes(pid: int, name: str) -> float:
    """What Linux says of a process's memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


@contextmanager
def asking(**asked: Callable[[], httpx.Response]) -> Iterator[dict[str, float]]:
    """Ask again and again during a block; gives how many seconds the slowest answer took, by what was asked."""
    slowest = dict.fromkeys(asked, 0.0)
    stop = threading.Event()

    def ask(name: str) -> None:
        while not stop.wait(0.05):
            began = time.monotonic()
            assert asked[name]().is_success
            slowest[name] = max(slowest[name], time.monotonic() - began)

    threads = [threading.Thread(target=ask, args=[name]) for name in asked]
    for thread in threads:
        thread.start()
    try:
        yield slowest
    finally:
        stop.set()
        for thread in threads:
            thread.join()


async def is_released(url: str, reports: int) -> bool:
    """Whether everything was taken up."""
    database = Database(make_url(url))
    async with database.read() as connection:
        query = select(func.sum(operations.c.success_device_count)).where(operations.c.id == OPERATION)
        found = (await connection.execute(query)).scalar_one()
    await database.close()
    return bool(found == reports // len(STATES))


async def assert_released(url: str, reports: int) -> None:
    """Everything was taken up, once."""
    database = Database(make_url(url))
    stored = await read(database)
    await database.close()
    assert stored.dead_letters.total() == 0
    assert stored.operations[OPERATION].counters["success_device_count"] == reports // len(STATES)
    assert stored.operations[OPERATION].states[-1] == "COMPLETED"
    assert stored.operations[OPERATION].states.count("COMPLETED") == 1


@pytest.mark.alone
async def test_a_worker_takes_up_what_waits_for_an_announcement_in_portions(
    deviceops: Deviceops, amqp_url: str, topology_prefix: str, channel: AbstractChannel, full: bool
) -> None:
    reports = REPORTS_OF_CI if full else REPORTS
    deviceops = deviceops.with_settings(amqp_url=amqp_url, topology_prefix=topology_prefix)
    exchange = await declared(deviceops, channel)
    url = deviceops.settings["database_url"]
    await park(url, reports)

    with running(deviceops) as worker:
        await asyncio.to_thread(eventually, worker.is_ready)
        before = megabytes(worker.process.pid, "VmRSS")
        with asking(livez=lambda: worker.get("livez"), metrics=lambda: worker.get("metrics")) as slowest:
            await send(exchange, announcement(reports), type=ANNOUNCEMENT, message_id="one")
            await asyncio.to_thread(eventually, lambda: worker.metrics()["deviceops_received_total"], PATIENCE)
        growth = megabytes(worker.process.pid, "VmHWM") - before

    print(f"{reports:,} reports: {growth:.0f} MB more, answers took at most {slowest} s")  # noqa: T201
    assert growth < GROWTH
    assert max(slowest.values()) < LATEST, slowest
    await assert_released(url, reports)


@pytest.mark.alone
async def test_a_call_takes_up_what_waits_in_portions_and_no_other_call_waits_for_it(
    deviceops: Deviceops, full: bool
) -> None:
    reports = REPORTS_OF_CI if full else REPORTS
    url = deviceops.settings["database_url"]
    await park(url, reports)

    with serving(deviceops) as server, server.client() as api:
        api.timeout = httpx.Timeout(PATIENCE)
        before = megabytes(server.process.pid, "VmRSS")

        def announce_another() -> httpx.Response:
            return api.post(OPERATIONS, json=announcement_body(uuid4(), [uuid4()]))

        calls = {
            "livez": lambda: server.probe("livez"),
            "read": lambda: api.get(OPERATIONS),
            "write": announce_another,
        }
        with asking(**calls) as slowest:
            body = json.dumps(announcement(reports), separators=(",", ":"))
            answer = await asyncio.to_thread(api.post, OPERATIONS, content=body, headers=JSON)
        growth = megabytes(server.process.pid, "VmHWM") - before

    assert answer.status_code == httpx.codes.CREATED, answer.text
    print(f"{reports:,} reports: {growth:.0f} MB more, answers took at most {slowest} s")  # noqa: T201
    assert growth < GROWTH
    assert max(slowest.values()) < LATEST, slowest
    await assert_released(url, reports)


def announcement(reports: int) -> dict[str, Any]:
    return announcement_body(OPERATION, devices(reports))
