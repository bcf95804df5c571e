"""Two workers on one PostgreSQL: no deadlock, no lost update, nothing lost between them, nothing twice."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

import aio_pika
import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.support.command import Deviceops
from tests.support.databases import read
from tests.support.rules import STATES
from worker.model.identity import device_operation_id
from worker.model.messages import ANNOUNCEMENT, Message
from worker.model.outcomes import Tally
from worker.model.parsing import parse
from worker.processing.splitting import WriteTransactions, process_items
from worker.store import batch as store
from worker.store.database import Database

ROUNDS = 40
T = TypeVar("T")


@pytest.fixture
async def workers(new_postgresql_database: Callable[[], str]) -> AsyncIterator[list[Database]]:
    """Two workers' databases: one PostgreSQL, and connections of their own."""
    url = make_url(new_postgresql_database())
    databases = [Database(url, for_batches=True), Database(url, for_batches=True)]
    yield databases
    for database in databases:
        await database.close()


def message(body: dict[str, Any], type_: str | None = None) -> Message:
    return Message(json.dumps(body).encode(), datetime.now(UTC), type=type_)


def report(operation: UUID, device: UUID, state: str) -> Message:
    return message(
        {
            "operation_id": str(operation),
            "device_id": str(device),
            "state": state,
            "service_id": "drift-service",
            "report_id": str(uuid4()),
        }
    )


async def process(database: Database, messages: list[Message]) -> Tally:
    """One batch in one transaction; a deadlock or a serialization failure is an error here: nothing retries."""
    return await process_items(
        WriteTransactions(database), [item for message in messages for item in parse(message)]
    )


async def assert_exact(database: Database) -> None:
    for operation in (await read(database)).operations.values():
        assert operation.counters == operation.recount()


async def test_both_register_the_same_devices_of_the_same_operations_at_once(workers: list[Database]) -> None:
    for seed in range(ROUNDS):
        shuffled = random.Random(seed)  # noqa: S311
        operations, devices = [uuid4(), uuid4()], [uuid4() for _ in range(20)]
        batches = []
        for _ in workers:
            batch = [report(operation, device, "CREATED") for operation in operations for device in devices]
            batch += [report(operation, device, "SUCCESS") for operation in operations for device in devices]
            body = {
                "id": str(operations[0]),
                "operation_type": "CONVERGE",
                "device_ids": [str(d) for d in devices],
            }
            batch.append(message(body, ANNOUNCEMENT))
            shuffled.shuffle(batch)
            batches.append(batch)

        tallies = await asyncio.gather(*map(process, workers, batches))

        assert sum(tally.received for tally in tallies) == sum(map(len, batches)), f"seed {seed}"
    stored = await read(workers[0])
    assert len(stored.operations) == 2 * ROUNDS
    for operation in stored.operations.values():
        assert operation.counters["success_device_count"] == 20
        assert operation.state == "COMPLETED"
    assert not stored.dead_letters
    await assert_exact(workers[0])


async def test_a_report_parked_while_another_worker_registers_its_device_is_not_forgotten(
    workers: list[Database],
) -> None:
    for seed in range(ROUNDS):
        shuffled = random.Random(seed)  # noqa: S311
        operation, devices = uuid4(), [uuid4() for _ in range(20)]
        registrations = [report(operation, device, "CREATED") for device in devices]
        early = [report(operation, device, "FAILURE") for device in devices]
        shuffled.shuffle(registrations)
        shuffled.shuffle(early)

        await asyncio.gather(process(workers[0], registrations), process(workers[1], early))

    stored = await read(workers[0])
    assert not stored.dead_letters
    for found in stored.operations.values():
        assert {device.state for device in found.devices.values()} == {"FAILURE"}
    await assert_exact(workers[0])


async def test_both_move_the_same_devices_in_opposite_orders_without_deadlock(workers: list[Database]) -> None:
    operations, devices = [uuid4() for _ in range(5)], [uuid4() for _ in range(40)]
    pairs = [(operation, device) for operation in operations for device in devices]
    await process(workers[0], [report(*pair, "CREATED") for pair in pairs])

    async def work(database: Database, seed: int) -> None:
        shuffled = random.Random(seed)  # noqa: S311
        for state in ("INITIATED", "DISPATCHED", "PROCESSING", "SUCCESS", "COMPLETED"):
            batch = [report(*pair, state) for pair in pairs]
            batch += [message({"operation_id": str(seed), "state": state})]  # both keep the same dead letters
            shuffled.shuffle(batch)
            for start in range(0, len(batch), 50):
                await process(database, batch[start : start + 50])

    await asyncio.gather(*(work(database, seed) for seed, database in enumerate(workers)))

    for operation in (await read(workers[0])).operations.values():
        assert operation.counters["success_device_count"] == len(devices)
    await assert_exact(workers[0])


async def test_whoever_was_overtaken_begins_again(
    workers: list[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    operation, device = uuid4(), uuid4()
    lock, lock_skip_locked = store.lock, store.lock_skip_locked
    told: list[str] = []

    async def overtaking(connection: AsyncConnection, ids: Collection[UUID]) -> Iterable[store.StoredState]:
        held = list(await lock(connection, ids))
        if not told:
            told.append("registered by the other one")
            await process(workers[1], [report(operation, device, "CREATED")])
        return held

    async def while_held(connection: AsyncConnection, ids: Collection[UUID]) -> Iterable[store.StoredState]:
        if not ids or len(told) > 1:
            return await lock_skip_locked(connection, ids)
        told.append("held by the other one")
        async with workers[1].write() as other:
            assert list(await lock(other, ids))
            return list(await lock_skip_locked(connection, ids))

    monkeypatch.setattr(store, "lock", overtaking)
    monkeypatch.setattr(store, "lock_skip_locked", while_held)
    tally = await process(workers[0], [report(operation, device, "SUCCESS")])

    assert told == ["registered by the other one", "held by the other one"]
    assert tally.document() == {**Tally().document(), "received": 1, "applied": 1}
    await assert_exact(workers[0])


async def test_locks_on_the_same_device_operations_are_taken_in_one_order_whatever_the_batches_order(
    workers: list[Database],
) -> None:
    operation, devices = uuid4(), [uuid4() for _ in range(3_000)]
    now = datetime.now(UTC)
    registered = {device_operation_id(operation, device): device for device in devices[:2_000]}
    await process(workers[0], [report(operation, device, "CREATED") for device in registered.values()])
    claims: list[tuple[UUID, UUID, UUID, datetime, str, str | None, int | None]] = [
        (device_operation_id(operation, device), operation, device, now, "", None, None) for device in devices
    ]

    async def hold(database: Database) -> None:
        async with database.write() as connection:
            assert len(list(await store.lock(connection, shuffled(list(registered))))) == 2_000

    async def claim(database: Database) -> None:
        async with database.write() as connection:
            inserted = await store.claim(connection, shuffled(claims), now, 0)
            await store.withdraw(connection, inserted, set(), set())

    for _ in range(ROUNDS // 4):
        await asyncio.gather(*map(hold, workers))
        await asyncio.gather(*map(claim, workers))


def shuffled(some: list[T]) -> list[T]:
    return random.sample(some, len(some))


@pytest.mark.alone
@pytest.mark.timeout(900)
async def test_a_large_fleet_through_the_broker_beside_a_second_worker(
    full: bool,
    new_postgresql_database: Callable[[], str],
    deviceops_on_sqlite: Deviceops,
    amqp_url: str,
    topology_prefix: str,
) -> None:
    url = new_postgresql_database()
    deviceops = deviceops_on_sqlite.with_settings(
        database_url=url, amqp_url=amqp_url, topology_prefix=topology_prefix
    )
    reports, devices = (300_000, "3200") if full else (20_000, "240")
    fleet = ("--operations", "20", "--devices", devices, "--seed", "11", "--early", "0.1")
    spoilt = ("--disorder", "0.2", "--duplicates", "0.1", "--malformed", "0.005")
    lines = deviceops.out("simulate", *fleet, *spoilt)
    count = len(lines.splitlines())
    assert count >= reports

    deviceops.out("run", "--until-idle", "0.1")
    with (
        deviceops.start("run", "--until-idle", "10", "--json") as first,
        deviceops.start("run", "--until-idle", "10", "--json") as second,
    ):
        deviceops.out("publish", "-", "--unchecked", lines=lines)
        summaries = [json.loads(worker.communicate(timeout=600)[0]) for worker in (first, second)]

    total = {name: sum(summary[name] for summary in summaries) for name in ("received", "announced", "duplicate")}
    assert all(summary["applied"] > count / 10 for summary in summaries), "both were to work"
    distinct = set(lines.splitlines())
    assert total == {"received": count, "announced": 20, "duplicate": count - len(distinct)}
    expected, malformed = what_is_left_of(distinct)
    database = Database(make_url(url))
    stored = await read(database)
    await database.close()
    assert {
        (str(operation_id), str(device_id)): (device.state, device.dispatched)
        for operation_id, operation in stored.operations.items()
        for device_id, device in operation.devices.items()
    } == expected
    assert all(operation.counters == operation.recount() for operation in stored.operations.values())
    assert {reason for reason, _, _ in stored.dead_letters} == {"malformed"}
    assert sum(stored.dead_letters.values()) == malformed
    assert deviceops.document("recount") == {"operations": 20, "drifted": []}
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"{topology_prefix}.reports", passive=True)
        assert queue.declaration_result.message_count == 0


DISPATCHED = {"DISPATCHED", "PROCESSING", "SUCCESS", "COMPLETED"}


def what_is_left_of(lines: set[str]) -> tuple[dict[tuple[str, str], tuple[str, bool]], int]:
    """Each pair's highest state and whether any report shows a dispatch; how many lines are unreadable.

    The model's list goes from lowest to highest, since no simulated device here is reported on two branches.
    """
    reported: dict[tuple[str, str], set[str]] = {}
    malformed = 0
    for line in lines:
        try:
            document = json.loads(line)
        except ValueError:
            malformed += 1
            continue
        if "body" in document:
            body = document["body"]
            for device in body["device_ids"]:
                reported.setdefault((body["id"], device), set()).add("CREATED")
        elif (
            document.get("state") in STATES and "device_id" in document and isinstance(document["service_id"], str)
        ):
            reported.setdefault((document["operation_id"], document["device_id"]), set()).add(document["state"])
        else:
            malformed += 1
    return {
        pair: (max(states, key=STATES.index), bool(states & DISPATCHED)) for pair, states in reported.items()
    }, malformed
