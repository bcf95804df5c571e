"""What a database costs that has a million device operations and three million activities already."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import httpx
from pydantic_core import to_json
from sqlalchemy import make_url

from statemachine import State
from tests.benchmarks.consuming import rate_of_deviceops
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Stage, plain
from tests.benchmarks.traffic import Traffic
from tests.support.command import Deviceops
from tests.support.serving import OPERATIONS, serving
from worker.model.identity import device_operation_id
from worker.model.state_times import entry
from worker.model.timing import milliseconds
from worker.simulate import START
from worker.store.database import Database
from worker.store.recount import find_drift, fix_drift

OF_FEW, OF_MANY = UUID(int=1), UUID(int=2)
FEW = 1_000
HIGHER = (State.PROCESSING, State.TIMEOUT, State.SUCCESS, State.COMPLETED)
"""Where the devices that are there can still go, one after another."""

REACHED = "".join(
    entry(state, START + timedelta(seconds=seconds))
    for seconds, state in enumerate((State.CREATED, State.INITIATED, State.DISPATCHED), 1)
)
DISPATCHED = State.DISPATCHED, True, "", START, START, REACHED, milliseconds(START), milliseconds(START)
COLUMNS = (
    *("id", "operation_id", "device_id", "state", "dispatched", "reason", "created_at", "updated_at", "reached"),
    *("registered_at", "reported_at"),
)
OPERATION = """
INSERT INTO operations (id, operation_type, state, created_at, updated_at) VALUES ($1, 'CONVERGE', '', $2, $2)
"""
ACTIVITY = """
INSERT INTO device_operation_activity
    (device_operation_id, report_id, state, verdict, created_at, service_id, reason)
SELECT id, gen_random_uuid(), (ARRAY[10, 20, 30])[n], 'applied', created_at + n * interval '1 second',
    'drift-service', 'simulated' FROM device_operations, generate_series(1, 3) AS n
"""


@dataclass(frozen=True)
class Grown:
    """A database in which one operation has so many devices, and another a thousand."""

    url: str
    devices: Sequence[UUID]

    def reports(self, number: int, round_: int) -> Traffic:
        """So many reports about devices that are there, each of which moves one."""
        number = min(number, len(self.devices))
        uses, start = divmod(number * round_, len(self.devices) // number * number)
        return Traffic.from_lines(self._lines(start, number, HIGHER[uses % len(HIGHER)], round_))

    def _lines(self, start: int, number: int, state: State, round_: int) -> Iterator[str]:
        for device in self.devices[start : start + number]:
            pair = {"operation_id": OF_MANY, "device_id": device}
            yield to_json(
                {**pair, "state": state.name, "service_id": "drift-service", "report_id": f"{device}/{round_}"}
            ).decode()


async def growth(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """By the number of device operations: rates, bytes per report, and milliseconds of reading."""
    steps.begin(len(sizes.devices) * (1 + sizes.rounds) + 1)
    with ExitStack() as stack:
        grown: dict[int, Grown] = {}
        for size in sizes.devices:
            steps.next(f"filling a database with {size:,} device operations")
            grown[size] = await _grown(stack.enter_context(stage.database()), size)
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(sizes.rounds):
            found = {}
            for size in sizes.devices[:: -1 if number % 2 else 1]:
                steps.next(f"round {number + 1}: {size:,} device operations")
                found[str(size)] = await _round(stage, grown[size], sizes.reports, number)
            rounds.append(found)
        for each in grown.values():
            _, drifted = await _recounted(each.url)
            assert not drifted, f"counters differ from a recount: {drifted[:3]}"
        steps.next("reading")
        reading = _reading(stage, grown, sizes.calls)
    names = [str(size) for size in sizes.devices]
    least, most, few = names[0], names[-1], str(FEW)

    def medians(what: str) -> dict[str, float]:
        return {name: statistics.median(each[name][what] for each in rounds) for name in names}

    def ratio(what: str) -> float:
        return statistics.median(each[most][what] / each[least][what] for each in rounds)

    return {
        "rates": medians("new"),
        "rates_of_one_operation": medians("there"),
        "bytes_per_report": medians("bytes"),
        "reading_ms": reading,
        "ratios": {
            f"rate {most}/{least}": ratio("new"),
            f"rate of one operation {most}/{least}": ratio("there"),
            f"read an operation {most}/{few}": reading[most]["operation"] / reading[few]["operation"],
            f"read a page {most}/{few}": reading[most]["page"] / reading[few]["page"],
        },
        "rounds": rounds,
    }


async def _grown(url: str, size: int) -> Grown:
    random = Random(size)
    few, many = ([UUID(int=random.getrandbits(128), version=4) for _ in range(n)] for n in (FEW, size))
    connection = await asyncpg.connect(plain(url))
    try:
        for operation, devices in ((OF_FEW, few), (OF_MANY, many)):
            await connection.execute(OPERATION, operation, START)
            await connection.copy_records_to_table(
                "device_operations",
                records=(
                    (device_operation_id(operation, device), operation, device, *DISPATCHED) for device in devices
                ),
                columns=COLUMNS,
            )
        await connection.execute(ACTIVITY)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
    database, drifted = await _recounted(url)
    await fix_drift(database, drifted)
    await database.close()
    return Grown(url, many)


async def _recounted(url: str) -> tuple[Database, list[Any]]:
    database = Database(make_url(url))
    _, drifted = await find_drift(database)
    await database.close()
    return database, drifted


async def _round(stage: Stage, grown: Grown, reports: int, number: int) -> dict[str, float]:
    """The rate with new operations, bytes per report of these, and the rate with devices that are there."""
    traffic = Traffic.of(reports, seed=10_000 + number)
    before = await _bytes(grown.url)
    new = await rate_of_deviceops(stage, traffic, database_url=grown.url)
    size = (await _bytes(grown.url) - before) / traffic.expected.received
    there = await rate_of_deviceops(stage, grown.reports(reports // 3, number), database_url=grown.url)
    return {"new": new, "there": there, "bytes": size}


async def _bytes(url: str) -> int:
    connection = await asyncpg.connect(plain(url))
    try:
        return int(await connection.fetchval("SELECT pg_database_size(current_database())"))
    finally:
        await connection.close()


def _reading(stage: Stage, grown: Mapping[int, Grown], calls: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a call of the HTTP API, medians of calls in turn; of a thousand in the largest database."""
    with ExitStack() as stack:
        clients: dict[str, tuple[httpx.Client, UUID]] = {}
        for size, each in grown.items():
            deviceops = Deviceops(stage.directory, {"database_url": each.url, "log_level": "INFO"})
            server = stack.enter_context(serving(deviceops))
            clients[str(size)] = stack.enter_context(server.client()), OF_MANY
        clients[str(FEW)] = clients[str(max(grown))][0], OF_FEW
        taken: dict[str, dict[str, list[float]]] = {name: {"operation": [], "page": []} for name in clients}
        for number in range(calls):
            for name, (client, operation) in list(clients.items())[:: -1 if number % 2 else 1]:
                for what, path in {"operation": "", "page": "devices/"}.items():
                    url = f"{OPERATIONS}{operation}/{path}"
                    client.get(url)  # so that each finds its server as awake as the others do
                    started = time.perf_counter()
                    assert client.get(url).status_code == httpx.codes.OK
                    taken[name][what].append((time.perf_counter() - started) * 1_000)
    return {name: {what: statistics.median(each) for what, each in found.items()} for name, found in taken.items()}
