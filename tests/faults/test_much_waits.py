"""However many parked reports wait for what is announced, it takes little memory, and keeps nobody waiting."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from aio_pika.abc import AbstractChannel
from sqlalchemy import make_url

from tests.faults.backlog import announcement, assert_released, park
from tests.support.brokering import declared, eventually, send
from tests.support.command import Deviceops
from tests.support.sending import ANNOUNCEMENT, announcement_body
from tests.support.serving import OPERATIONS, serving
from tests.support.watching import running

JSON = {"Content-Type": "application/json"}
REPORTS, REPORTS_IN_FULL = 40_000, {"sqlite": 100_000, "postgresql": 200_000}
GROWTH = 100
"""MB beyond what the process has anyway, at most: with 200,000 reports at once it was a gigabyte."""
PATIENCE = 300
"""Seconds that all of it may take."""
LATEST = 1.0
"""Seconds that a probe or a call may take meanwhile."""


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


@pytest.mark.alone
async def test_a_worker_takes_up_what_waits_for_an_announcement_in_portions(
    deviceops: Deviceops, amqp_url: str, topology_prefix: str, channel: AbstractChannel, full: bool
) -> None:
    url = deviceops.settings["database_url"]
    reports = REPORTS_IN_FULL[make_url(url).get_backend_name()] if full else REPORTS
    deviceops = deviceops.with_settings(amqp_url=amqp_url, topology_prefix=topology_prefix)
    exchange = await declared(deviceops, channel)
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
    url = deviceops.settings["database_url"]
    reports = REPORTS_IN_FULL[make_url(url).get_backend_name()] if full else REPORTS
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
