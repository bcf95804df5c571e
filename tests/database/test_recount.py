"""`recount` finds what does not agree, whatever it is, and mends it; once on each kind of database."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, insert, select, update

from statemachine import Counters, State
from tests.support.letters import conflict
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    NOW,
    OPERATIONS,
    announcement_body,
    assert_counters_are_a_recount,
    message,
    process,
    report_body,
)
from worker.dead_letters.replay import replay
from worker.errors import DeviceopsError
from worker.model.identity import device_operation_id
from worker.model.messages import Message
from worker.store import consistency, queries, recount
from worker.store.database import Database
from worker.store.recount import Drift, find_drift, fix_drift
from worker.store.selection import Selection
from worker.store.tables import (
    activity,
    announcements,
    dead_letter_history,
    device_operations,
    operation_activity,
    operation_minutes,
    operations,
    reason_groups,
)

OPERATION, OTHER = OPERATIONS
DEVICE = DEVICES[0]
ID = device_operation_id(OPERATION, DEVICE)


def report(state: str, at: datetime = NOW) -> Message:
    return message(report_body(OPERATION, DEVICE, state, occurred_at=at.isoformat()))


@pytest.fixture
async def stored(database: Database) -> Database:
    """Two operations, with reports, announcements and a dead letter that was replayed."""
    await process(
        database, [[message(announcement_body(each, DEVICES), ANNOUNCEMENT, "one")] for each in OPERATIONS]
    )
    await process(database, [[report("PROCESSING"), report("SUCCESS", NOW + timedelta(hours=1))]])
    await conflict(database)
    await replay(database, Selection(), actor="me")
    assert await find_drift(database) == (2, [])
    return database


async def found(database: Database) -> dict[str, tuple[object, object]]:
    """What differs of the only drift: as it is stored, and as it should be."""
    _, [drift] = await find_drift(database)
    stored = drift.stored or {}
    return {name: (stored.get(name), value) for name, value in drift.actual.items() if stored.get(name) != value}


async def assert_mended(database: Database) -> None:
    _, drifted = await find_drift(database)
    await fix_drift(database, drifted)
    assert await find_drift(database) == (2, [])
    await assert_counters_are_a_recount(database)


async def test_a_wrong_state_of_an_operation_is_found(stored: Database) -> None:
    async with stored.write() as connection:
        await connection.execute(update(operations).where(operations.c.id == OTHER).values(state="COMPLETED"))

    assert await found(stored) == {"state": ("COMPLETED", "RESOLVED")}
    await assert_mended(stored)


async def test_an_operation_that_is_missing_is_found_and_made_again(
    stored: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in (1, recount.SIZE):
        monkeypatch.setattr(recount, "SIZE", size)
        for missing in OPERATIONS:
            async with stored.write() as connection:
                await connection.execute(delete(operations).where(operations.c.id == missing))

            count, [drift, *_] = await find_drift(stored)

            assert (count, drift.operation_id, drift.stored) == (1, missing, None)
            assert drift.actual["resolved_device_count"] == len(DEVICES)
            await assert_mended(stored)


async def test_rows_whose_owner_is_missing_are_found_and_removed(stored: Database) -> None:
    rows = {
        activity: {"device_operation_id": OTHER, "report_id": "1", "state": 10, "verdict": "applied"}
        | {"created_at": NOW, "service_id": "", "reason": ""},
        operation_activity: {"operation_id": DEVICE, "state": "CREATED", "created_at": NOW},
        announcements: {"operation_id": DEVICE, "message_id": "1"},
        reason_groups: {
            "operation_id": DEVICE,
            "state": 60,
            "cause": "x",
            "devices": 0,
            "reason": "",
            "example": "",
        }
        | {"first_at": NOW, "last_at": NOW},
        operation_minutes: {"operation_id": DEVICE, "hour": 1, "settled": "0=1"},
        dead_letter_history: {
            "dead_letter_id": 10**6,
            "at": NOW,
            "action": "replayed",
            "outcome": "",
            "detail": "",
        },
    }
    async with stored.write() as connection:
        for table, row in rows.items():
            await connection.execute(insert(table), row)

    _, drifted = await find_drift(stored)

    assert drifted == [Drift(None, {name: 1}, {name: 0}) for name in consistency.OWNERS]
    await assert_mended(stored)


async def test_a_history_that_differs_from_its_reports_is_found_and_put_right(stored: Database) -> None:
    async def document() -> object:
        async with stored.read() as connection:
            return await queries.get_device_operation(connection, OPERATION, DEVICE)

    before = await document()
    async with stored.read() as connection:
        right = (await connection.execute(select(device_operations.c.reached).filter_by(id=ID))).scalar_one()
    entries = [right[start : start + 18] for start in range(0, len(right), 18)]
    assert [entry[:3] for entry in entries] == ["10=", "40=", "50=", "60="][: len(entries)]
    for wrong in ("", *("".join(entries[:number] + entries[number + 1 :]) for number in range(len(entries)))):
        async with stored.write() as connection:
            await connection.execute(update(device_operations).filter_by(id=ID).values(reached=wrong))

        assert await found(stored) == {consistency.WRONG_HISTORIES: (1, 0)}
        await assert_mended(stored)
        assert await document() == before


@pytest.mark.parametrize("wrong", [{"state": State.CREATED}, {"state": State.TIMEOUT}, {"dispatched": False}])
async def test_a_state_that_is_behind_its_history_is_found_and_put_right(
    stored: Database, wrong: dict[str, object]
) -> None:
    async def row() -> object:
        columns = device_operations.c.state, device_operations.c.dispatched, device_operations.c.reached
        async with stored.read() as connection:
            return (await connection.execute(select(*columns).filter_by(id=ID))).one()

    before = await row()
    async with stored.write() as connection:
        await connection.execute(update(device_operations).filter_by(id=ID).values(**wrong))

    assert (await found(stored))[consistency.WRONG_HISTORIES] == (1, 0)
    await assert_mended(stored)
    assert await row() == before


async def test_a_state_that_is_told_too_late_is_found(stored: Database) -> None:
    async with stored.write() as connection:
        earlier = update(activity).filter_by(device_operation_id=ID, state=50)
        await connection.execute(earlier.values(created_at=NOW - timedelta(microseconds=1)))

    assert await found(stored) == {consistency.WRONG_HISTORIES: (1, 0)}
    await assert_mended(stored)


async def test_what_was_pruned_of_a_history_makes_it_no_worse(stored: Database) -> None:
    async with stored.write() as connection:
        await connection.execute(delete(activity).filter_by(device_operation_id=ID, state=40))

    assert await find_drift(stored) == (2, [])


async def test_a_stored_state_that_is_none_is_named(stored: Database) -> None:
    async with stored.write() as connection:
        await connection.execute(update(device_operations).filter_by(id=ID).values(state=55))

    with pytest.raises(DeviceopsError, match=f"operation {OPERATION}: 1 device operations are stored in 55"):
        await find_drift(stored)


async def test_every_operation_is_recounted_however_many_are_looked_at_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [device_operation_id(OPERATION, device) for device in DEVICES]
    await process(database, [[message(announcement_body(id_, DEVICES), ANNOUNCEMENT) for id_ in ids]])
    async with database.write() as connection:
        await connection.execute(update(operations).values(in_created=7, updated_at=datetime.now(UTC)))

    for size in (1, 2, 3, 4):
        monkeypatch.setattr(recount, "SIZE", size)
        count, drifted = await find_drift(database)
        assert (count, [drift.operation_id for drift in drifted]) == (3, sorted(ids))
        for drift in drifted:
            assert drift.stored is not None
            assert (drift.stored["in_created"], drift.actual["in_created"]) == (7, 3)
            assert drift.actual.keys() == {*Counters._fields, "state"}
