"""What a transaction tells: everything that it has changed, once, and nothing that was not committed."""

import json
from collections import Counter, defaultdict
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from sqlalchemy import select, update

from statemachine import Counters, State
from tests.support.databases import clear
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    Batches,
    announcement_body,
    message,
    process,
    report_body,
)
from tests.support.strategies import streams
from worker.model import changes
from worker.model.changes import ChangeType, Told
from worker.model.messages import Origin
from worker.processing.direct import cancel_operation
from worker.store import change_log, outbox, queries
from worker.store.change_log import LoggedChange, Read
from worker.store.change_page import missed_after, number_all
from worker.store.database import Database
from worker.store.recount import find_drift, fix_drift
from worker.store.tables import change_cursors, dead_letters, device_operations, operations
from worker.store.tables import changes as log

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
NAME = "relay:test"


@pytest.fixture(autouse=True)
def _telling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_told", Told.ALL)


async def told(database: Database) -> list[tuple[str, Any]]:
    """The type and body of every change, in order."""
    await number_all(database)
    async with database.read() as connection:
        found = await change_log.read_after(connection, 0, 10_000)
    assert [each.position for each in found] == list(range(1, len(found) + 1))
    assert len({each.id for each in found}) == len(found)
    for each in found:
        changes.BODIES[ChangeType(each.type)].model_validate_json(each.payload)
    return [(each.type, json.loads(each.payload)) for each in found]


@given(stream=streams())
@settings(max_examples=150)
async def test_who_applies_what_is_told_has_what_the_database_has(database: Database, stream: Batches) -> None:
    await clear(database)

    await process(database, stream)

    states: defaultdict[str, dict[str, str]] = defaultdict(dict)
    sequences: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    last: dict[str, Any] = {}
    letters = 0
    for type_, body in await told(database):
        if type_ == ChangeType.DEAD_LETTERS_ADDED:
            letters += body["count"]
            continue
        sequences[body["operation_id"], type_].append(body["sequence"])
        if type_ == ChangeType.OPERATION_CHANGED:
            before = last.get(body["operation_id"])
            assert body["before"] == (before and before["state"])
            last[body["operation_id"]] = body
        for change in body.get("changes", ()):
            assert change["before"] == states[body["operation_id"]].get(change["device_id"])
            assert change["before"] != change["state"]
            states[body["operation_id"]][change["device_id"]] = change["state"]
    async with database.read() as connection:
        stored = {str(row.id): row for row in await connection.execute(select(operations))}
        column = device_operations.c
        found: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for row in await connection.execute(select(column.operation_id, column.device_id, column.state)):
            found[str(row.operation_id)][str(row.device_id)] = State(row.state).name
        rows = (await connection.execute(select(dead_letters.c.status, dead_letters.c.attempts))).all()
    assert states == found
    assert letters == sum(row.status != "resolved" or row.attempts > 1 for row in rows)
    assert last.keys() == stored.keys()
    for id_, row in stored.items():
        assert last[id_]["state"] == row.state
        assert last[id_]["counters"] == {name: getattr(row, name) for name in Counters._fields}
        for type_ in (ChangeType.OPERATION_CHANGED, ChangeType.DEVICE_OPERATIONS_CHANGED):
            assert sequences[id_, type_] == list(range(1, row.sequence + 1))


async def test_one_change_for_an_operation_and_transaction_whatever_the_number_of_reports(
    database: Database,
) -> None:
    devices = [uuid4() for _ in range(30)]
    reports = [
        message(report_body(OPERATION, each, state)) for each in devices for state in ("CREATED", "SUCCESS")
    ]

    await process(database, [reports])

    (first, operation), (second, moved) = await told(database)
    assert (first, second) == (ChangeType.OPERATION_CHANGED, ChangeType.DEVICE_OPERATIONS_CHANGED)
    assert operation["sequence"] == moved["sequence"] == 1
    assert operation["counters"]["success_device_count"] == 30
    assert Counter(each["state"] for each in moved["changes"]) == {"SUCCESS": 30}
    assert {each["before"] for each in moved["changes"]} == {None}


async def test_a_report_that_changes_nothing_tells_nothing(database: Database) -> None:
    created = message(report_body(OPERATION, DEVICE, "CREATED"), message_id="1")
    await process(database, [[created], [message(report_body(OPERATION, DEVICE, "SUCCESS"))]])
    before = len(await told(database))

    await process(database, [[created], [message(report_body(OPERATION, DEVICE, "SUCCESS"), message_id="other")]])

    assert len(await told(database)) == before


async def test_less_is_told_and_nothing_counted_as_the_setting_says(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [
        [message(report_body(OPERATION, DEVICE, state)), message(f"rubbish after {state}")]
        for state in ("CREATED", "FAILURE")
    ]
    monkeypatch.setattr(changes, "_told", Told.NONE)
    await process(database, batches[:1])
    assert await told(database) == []

    monkeypatch.setattr(changes, "_told", Told.OPERATIONS)
    await process(database, batches[1:])

    (_, rejected), (type_, body) = await told(database)
    assert (rejected["reason"], rejected["count"], len(rejected["ids"])) == ("malformed", 1, 1)
    assert (type_, body["sequence"], body["before"]) == (ChangeType.OPERATION_CHANGED, 1, "RESOLVED")


async def test_an_abort_is_told_with_its_numbers_in_the_same_sequence(database: Database) -> None:
    abort = {"failed_percent": 50, "min_settled": 1, "action": "notify"}
    await process(database, [[message(announcement_body(OPERATION, DEVICES, abort=abort), ANNOUNCEMENT)]])

    await process(database, [[message(report_body(OPERATION, DEVICE, "FAILURE"))]])

    found = await told(database)
    [aborted] = [body for type_, body in found if type_ == ChangeType.OPERATION_ABORTED]
    changed = [body for type_, body in found if type_ == ChangeType.OPERATION_CHANGED]
    assert (aborted["sequence"], aborted["failed"], aborted["settled"]) == (changed[-1]["sequence"], 1, 1)


async def test_a_transaction_that_fails_tells_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as connection:
            await outbox.tell(connection, [changes.dead_letters_added(_added())])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await told(database) == []


async def test_a_large_cancellation_comes_in_parts_of_one_sequence(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [uuid4() for _ in range(2_500)]
    await process(database, [[message(announcement_body(OPERATION, devices), ANNOUNCEMENT)]])
    monkeypatch.setattr(changes, "MAX_BYTES", 100_000)
    async with database.read() as connection:
        found = await queries.get_operation(connection, OPERATION)
    assert found is not None
    before = await told(database)

    await cancel_operation(database, found[0], Origin(), service_id="test", reason="enough", key="1")

    parts = [body for type_, body in (await told(database))[len(before) :] if "changes" in body]
    assert len(parts) > 1
    assert {body["sequence"] for body in parts} == {2}
    assert [body["part"] for body in parts] == list(range(1, len(parts) + 1))
    assert {body["parts"] for body in parts} == {len(parts)}
    assert {UUID(each["device_id"]) for body in parts for each in body["changes"]} == set(devices)


async def test_corrected_counters_are_told_in_both_streams(database: Database) -> None:
    await process(database, [[message(report_body(OPERATION, DEVICE, "CREATED"))]])
    async with database.write() as connection:
        await connection.execute(update(operations).values(success_device_count=7))

    _, drifted = await find_drift(database)
    await fix_drift(database, drifted)

    (_, operation), (_, moved) = (await told(database))[-2:]
    assert operation["counters"]["success_device_count"] == 0
    assert (operation["sequence"], moved["sequence"], moved["changes"]) == (2, 2, [])


def test_a_routing_key_has_the_parts_of_its_table_and_at_most_255_bytes() -> None:
    key = changes.routing_key(ChangeType.OPERATION_CHANGED, state="FAILED", operation_type="a.b c\td")
    assert key == "operation.FAILED.a_b_c_d"
    unknown = changes.routing_key(ChangeType.DEVICE_OPERATIONS_CHANGED, operation_type=None)
    assert unknown == "device-operations._"
    long = changes.routing_key(ChangeType.DEVICE_OPERATIONS_CHANGED, operation_type="ä" * 255)
    assert len(long.encode()) <= 255


async def test_a_cursor_is_advanced_to_what_was_read_and_not_to_what_has_taken_its_place(
    database: Database,
) -> None:
    """As after a failover that has lost the last transactions, whose positions others get."""
    holder = uuid4()
    await add(database, 3)

    async def read_on(read: Read) -> tuple[int, list[LoggedChange]]:
        async with database.write() as connection:
            await change_log.begin(connection, NAME)
            found = await change_log.read_on(connection, NAME, holder, 60_000, read, 10)
        assert found is not None
        return found.position, list(found.changes)

    _, found = await read_on(Read())
    second = found[1]
    position, rest = await read_on(Read(second.position, second.id))
    assert (position, [each.position for each in rest]) == (2, [3])
    position, _ = await read_on(Read(3, uuid4()))
    assert position == 2


async def test_a_cursor_is_held_by_one_process_until_its_time_is_up(database: Database) -> None:
    await add(database, 1)
    one, other = uuid4(), uuid4()

    async def read_on(holder: UUID, milliseconds: int) -> bool:
        async with database.write() as connection:
            await change_log.begin(connection, NAME)
            return await change_log.read_on(connection, NAME, holder, milliseconds, Read(), 10) is not None

    assert await read_on(one, 60_000)
    assert not await read_on(other, 60_000)
    assert await read_on(one, -1)
    assert await read_on(other, 60_000)
    assert not await read_on(one, 60_000)


async def test_beyond_the_limit_the_oldest_changes_of_device_operations_are_dropped_and_no_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_log, "AT_WORK", 0)
    for state in ("CREATED", "INITIATED", "DISPATCHED", "FAILURE"):
        await process(database, [[message(report_body(OPERATION, DEVICE, state))]])
    found = await told(database)
    async with database.write() as connection:
        await change_log.begin(connection, NAME)
        dropped = await change_log.drop(connection, NAME, len(found) - 2, 100)
        outstanding = await change_log.outstanding(connection, NAME)
        rest = await change_log.read_after(connection, 0, 100)
        extent = await change_log.extent(connection)

    assert (dropped, outstanding.number, outstanding.dropped) == (2, len(found) - 2, 2)
    assert outstanding.age is not None
    of_devices = [change for change in rest if change.type == ChangeType.DEVICE_OPERATIONS_CHANGED]
    assert [change.sequence for change in of_devices] == [3, 4]
    assert sum(change.type == ChangeType.OPERATION_CHANGED for change in rest) == 4
    assert missed_after(0, extent) is not None  # a reader from there has missed something
    assert missed_after(extent.first - 1, extent) is None


async def test_what_a_relay_has_not_published_is_not_removed_however_old(database: Database) -> None:
    await add(database, 10)
    async with database.write() as connection:
        await connection.execute(update(log).values(recorded_at=0))
        await change_log.begin(connection, NAME)
        held = update(change_cursors).where(change_cursors.c.name == NAME)
        await connection.execute(held.values(position=4, held_until=2**60))
        removed = await change_log.remove_read(connection, 1_000, 1_000_000, 100)
        rest = await change_log.read_after(connection, 0, 100)
    assert (removed, [each.position for each in rest]) == (4, [5, 6, 7, 8, 9, 10])


async def test_what_is_kept_for_a_time_is_kept_up_to_the_limit(database: Database) -> None:
    await add(database, 10)
    async with database.write() as connection:
        removed = await change_log.remove_read(connection, 10**9, 7, 100)
    assert removed == 3


async def add(database: Database, number: int) -> None:
    """Have some changes in the log."""
    async with database.write() as connection:
        await outbox.tell(connection, [changes.dead_letters_added(_added()) for _ in range(number)])
    await number_all(database)


def _added() -> changes.DeadLettersAdded:
    return changes.DeadLettersAdded.model_validate(
        {
            "reason": "malformed",
            "operation_id": None,
            "service_id": None,
            "count": 1,
            "ids": [1],
            "at": "2026-01-31T08:00:00Z",
        }
    )
