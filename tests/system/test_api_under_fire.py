"""Reports over HTTP and over AMQP at once, and a database that dies under them: nothing lost, nothing twice."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from uuid import UUID, uuid4

import httpx
import pytest
from aio_pika.abc import AbstractChannel
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from tests.support.brokering import declared, messages_in, send
from tests.support.command import Deviceops
from tests.support.databases import PostgresqlServer
from tests.support.sending import DEVICES as DEVICES_SENT
from tests.support.sending import OPERATIONS as OPERATIONS_SENT
from tests.support.sending import assert_counters_are_a_recount, message, process, report_body
from tests.support.services import PrivatePostgreSQL
from tests.support.serving import OPERATIONS, serving
from worker.processing.direct import process_message
from worker.store.database import Database
from worker.store.errors import is_transient

CLIENTS = 8
STATES = ("INITIATED", "DISPATCHED", "PROCESSING", "SUCCESS", "FAILURE", "CANCELLED", "TIMEOUT")
PAUSE = 0.05


def reports_of(operation: str, devices: list[str], seed: int) -> list[dict[str, str]]:
    """Reports about devices in no order, of which some contradict others."""
    randomly = random.Random(seed)  # noqa: S311  # a test's numbers, not a secret
    reports = [
        {
            "operation_id": operation,
            "device_id": device,
            "state": randomly.choice(STATES),
            "service_id": f"service-{seed}",
            "report_id": str(UUID(int=randomly.getrandbits(128))),
        }
        for device in devices
        for _ in range(2)
    ]
    randomly.shuffle(reports)
    return reports


async def put(api: httpx.AsyncClient, report: dict[str, str]) -> httpx.Response:
    path = f"{OPERATIONS}{report['operation_id']}/devices/{report['device_id']}/"
    body = {name: report[name] for name in ("state", "service_id")}
    return await api.put(path, json=body, headers={"Idempotency-Key": report["report_id"]})


async def assert_sound(url: str) -> None:
    database = Database(make_url(url))
    try:
        await assert_counters_are_a_recount(database)
    finally:
        await database.close()


@pytest.mark.timeout(600)
async def test_reports_over_http_and_amqp_at_once_leave_exact_counters(
    deviceops: Deviceops, amqp_url: str, topology_prefix: str, channel: AbstractChannel, full: bool
) -> None:
    deviceops = deviceops.with_settings(amqp_url=amqp_url, topology_prefix=topology_prefix)
    operations = [str(uuid4()) for _ in range(2)]
    devices = [str(uuid4()) for _ in range(100 if full else 25)]
    exchange = await declared(deviceops, channel)
    statuses: Counter[int] = Counter()
    with serving(deviceops) as server, deviceops.start("run", "--until-idle", "3", "--json") as worker:
        async with server.async_client() as api:
            for operation in operations:
                announcement = {"id": operation, "operation_type": "CONVERGE", "device_ids": devices}
                assert (await api.post(OPERATIONS, json=announcement)).status_code == 201

            async def over_http(seed: int) -> None:
                for report in reports_of(operations[seed % 2], devices, seed):
                    statuses[(await put(api, report)).status_code] += 1

            async def over_amqp(seed: int) -> None:
                for report in reports_of(operations[seed % 2], devices, seed):
                    await send(exchange, report)

            clients = [over_http(seed) for seed in range(CLIENTS)]
            await asyncio.gather(*clients, *(over_amqp(CLIENTS + seed) for seed in range(CLIENTS)))
            cancelled = await api.put(f"{OPERATIONS}{operations[0]}/", json={"state": "CANCELLED"})
            assert cancelled.status_code == 200
        out, err = await asyncio.to_thread(worker.communicate)

    assert worker.returncode == 0, err
    each = CLIENTS * len(devices) * 2
    assert json.loads(out)["received"] == each
    assert statuses.keys() == {200, 400}
    assert statuses.total() == each
    assert await messages_in(channel, f"{topology_prefix}.reports") == 0
    await assert_sound(deviceops.settings["database_url"])


@pytest.fixture
def private_postgresql() -> Iterator[PrivatePostgreSQL]:
    """A PostgreSQL server that a test may kill."""
    with PrivatePostgreSQL() as server:
        yield server


@pytest.mark.timeout(600)
async def test_a_database_that_is_killed_is_told_and_service_resumes_by_itself(
    private_postgresql: PrivatePostgreSQL, deviceops_on_sqlite: Deviceops
) -> None:
    databases = await asyncio.to_thread(PostgresqlServer, private_postgresql.url)
    url = await asyncio.to_thread(databases.create)
    deviceops = deviceops_on_sqlite.with_settings(database_url=url)
    operation, devices = str(uuid4()), [str(uuid4()) for _ in range(20)]
    with serving(deviceops) as server:
        async with server.async_client() as api:
            announcement = {"id": operation, "operation_type": "CONVERGE", "device_ids": devices}
            assert (await api.post(OPERATIONS, json=announcement)).status_code == 201
            killed = asyncio.Event()
            statuses: Counter[int] = Counter()

            async def until_taken(report: dict[str, str]) -> None:
                while True:
                    response = await put(api, report)
                    statuses[response.status_code] += 1
                    if response.status_code != 503:
                        return
                    assert response.headers["Retry-After"] == "1"
                    assert response.json()["code"] == 503
                    assert url not in response.text
                    await asyncio.sleep(PAUSE)

            async def over_http(seed: int) -> None:
                for number, report in enumerate(reports_of(operation, devices, seed)):
                    if number == len(devices):
                        await killed.wait()
                    await until_taken(report)

            clients = [asyncio.create_task(over_http(seed)) for seed in range(CLIENTS)]
            await asyncio.sleep(0.5)
            await asyncio.to_thread(private_postgresql.kill)
            killed.set()
            await asyncio.sleep(1)
            assert (await api.get(OPERATIONS)).status_code == 503
            await asyncio.to_thread(private_postgresql.start)
            await asyncio.gather(*clients)
            assert (await api.get(OPERATIONS)).status_code == 200

    assert statuses[503] > 0
    assert statuses.keys() <= {200, 400, 503}
    await assert_sound(url)


async def test_who_writes_over_http_waits_for_a_lock_so_long_and_no_longer(postgresql_database: Database) -> None:
    registration = message(report_body(OPERATIONS_SENT[0], DEVICES_SENT[0], "CREATED"))
    await process(postgresql_database, [[registration]])
    hurried = Database(postgresql_database.url, lock_timeout=0.2)
    async with postgresql_database.write() as connection:
        await connection.execute(text("SELECT id FROM device_operations FOR UPDATE"))
        report = message(report_body(OPERATIONS_SENT[0], DEVICES_SENT[0], "SUCCESS"))
        with pytest.raises(DBAPIError) as refused:
            await process_message(hurried, report)
    await hurried.close()
    assert is_transient(refused.value)  # which the API answers with 503
