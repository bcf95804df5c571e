"""Groups by cause: they agree with the device operations whatever was reported, and are bounded."""

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from statemachine import State
from tests.support.databases import clear
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
from worker.model import causes
from worker.model.causes import GROUPED, masked
from worker.model.messages import Message, Origin
from worker.processing.direct import cancel_operation
from worker.store import queries, reason_groups
from worker.store.database import Database
from worker.store.group_recount import wrong_groups
from worker.store.recount import find_drift, fix_drift
from worker.store.tables import device_operations
from worker.store.tables import reason_groups as table

pytestmark = pytest.mark.each_database(full=True)

OPERATION = OPERATIONS[0]
REASONS = ("disk 1 full", "disk 2 full", "no answer", "", None)
REPORTS = st.builds(
    lambda operation, device, state, reason, code: report_body(operation, device, state, reason=reason, code=code),
    st.sampled_from(OPERATIONS),
    st.sampled_from(DEVICES),
    st.sampled_from(["CREATED", "PROCESSING", "TIMEOUT", "SUCCESS", "FAILURE", "CANCELLED"]),
    st.sampled_from(REASONS),
    st.sampled_from(["full", "gone", None, None]),
)


def announced(devices: list[UUID], operation: UUID = OPERATION) -> Message:
    return message(announcement_body(operation, devices), ANNOUNCEMENT)


async def groups_of(database: Database, operation: UUID = OPERATION) -> list[tuple[str, str | None, str, int]]:
    async with database.read() as connection:
        found = [each.document for each in await reason_groups.largest(connection, operation)]
    return [(each.state, each.code, each.reason, each.count) for each in found]


async def counted(database: Database) -> Counter[tuple[UUID, int, str | None, str]]:
    """The groups as the device operations have them."""
    column, found = device_operations.c, Counter[tuple[UUID, int, str | None, str]]()
    async with database.read() as connection:
        for row in await connection.execute(select(device_operations).where(column.state.in_(GROUPED))):
            found[row.operation_id, row.state, row.code, "" if row.code else masked(row.reason)] += 1
    return found


@given(batches=st.lists(st.lists(REPORTS, max_size=6), max_size=6), limit=st.sampled_from([1, 2, 1_000]))
@settings(max_examples=60)
async def test_groups_add_up_to_the_device_operations_whatever_was_reported(
    database: Database, batches: list[list[dict[str, Any]]], limit: int
) -> None:
    await clear(database)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(causes, "MAX_GROUPS", limit)
        await process(database, [[announced(DEVICES[:2])]])
        await process(database, [[message(body) for body in batch] for batch in batches])

        expected = await counted(database)
        async with database.read() as connection:
            stored = (await connection.execute(select(table).where(table.c.devices > 0))).all()
        assert all(row.first_at <= row.last_at for row in stored)
        by_state = Counter[tuple[UUID, int]]()
        for row in stored:
            by_state[row.operation_id, row.state] += row.devices
            assert row.cause == causes.OTHER or causes.cause(State(row.state), row.code, row.example) == row.cause
        assert by_state == sum((Counter({key[:2]: n}) for key, n in expected.items()), Counter())
        if limit == 1_000:
            assert {
                (r.operation_id, r.state, r.code, "" if r.code else r.reason): r.devices for r in stored
            } == expected
        await assert_counters_are_a_recount(database)
        assert (await find_drift(database))[1] == []


async def test_a_group_says_how_many_since_when_and_until_when(database: Database) -> None:
    await process(database, [[announced(DEVICES)]])
    for number, device in enumerate(DEVICES):
        at = (NOW + timedelta(minutes=[5, 1, 3][number])).isoformat()
        await process(
            database,
            [[message(report_body(OPERATION, device, "FAILURE", reason=f"disk {number} full", occurred_at=at))]],
        )

    async with database.read() as connection:
        [group] = await reason_groups.largest(connection, OPERATION)

    document = group.document
    assert (document.state, document.code, document.reason, document.count) == (
        "FAILURE",
        None,
        "disk <number> full",
        3,
    )
    assert (document.first_at - NOW, document.last_at - NOW) == (timedelta(minutes=1), timedelta(minutes=5))
    assert group.example == "disk 0 full"


async def test_a_final_state_takes_a_device_out_of_the_group_of_its_timeout(database: Database) -> None:
    await process(database, [[announced(DEVICES)]])
    await process(database, [[message(report_body(OPERATION, each, "TIMEOUT", code="step"))] for each in DEVICES])
    assert await groups_of(database) == [("TIMEOUT", "step", "", 3)]

    await process(
        database,
        [
            [
                message(report_body(OPERATION, DEVICES[0], "SUCCESS")),
                message(report_body(OPERATION, DEVICES[1], "FAILURE", reason="late")),
            ]
        ],
    )

    assert await groups_of(database) == [("FAILURE", None, "late", 1), ("TIMEOUT", "step", "", 1)]


async def test_a_cancelled_operation_is_one_group(database: Database) -> None:
    await process(database, [[announced(DEVICES)]])
    async with database.read() as connection:
        found = await queries.get_operation(connection, OPERATION)
    assert found is not None

    await cancel_operation(database, found[0], Origin(), service_id="me", reason="no more", key="1")

    assert await groups_of(database) == [("CANCELLED", None, "no more", 3)]


async def test_a_recount_corrects_groups_and_the_causes_that_older_workers_leave(database: Database) -> None:
    await process(database, [[announced(DEVICES)]])
    await process(
        database, [[message(report_body(OPERATION, each, "FAILURE", reason="full"))] for each in DEVICES]
    )
    async with database.write() as connection:
        await connection.execute(update(table).values(devices=7))
        await connection.execute(
            update(device_operations).where(device_operations.c.device_id == DEVICES[0]).values(cause=None)
        )

    _, drifted = await find_drift(database)
    assert [drift.stored and drift.stored["wrong_reason_groups"] for drift in drifted] == [2]
    await fix_drift(database, drifted)

    assert (await find_drift(database))[1] == []
    assert await groups_of(database) == [("FAILURE", None, "full", 3)]


async def test_a_recount_corrects_the_cause_of_a_state_from_which_an_older_worker_moved_a_device_operation(
    database: Database,
) -> None:
    left: dict[UUID, dict[str, Any]] = {
        DEVICES[0]: {"state": State.FAILURE, "code": None, "reason": "full"},
        DEVICES[1]: {"state": State.FAILURE, "code": "full", "reason": ""},
        DEVICES[2]: {"state": State.SUCCESS, "code": None, "reason": ""},
    }
    await process(database, [[announced(DEVICES)]])
    await process(database, [[message(report_body(OPERATION, each, "TIMEOUT", code="step"))] for each in DEVICES])
    async with database.write() as connection:
        for device, values in left.items():
            of_device = update(device_operations).where(device_operations.c.device_id == device)
            await connection.execute(of_device.values(values))

    await fix_drift(database, (await find_drift(database))[1])

    assert (await find_drift(database))[1] == []
    assert await groups_of(database) == [("FAILURE", "full", "", 1), ("FAILURE", None, "full", 1)]


async def test_what_an_older_worker_left_in_no_group_leaves_none(database: Database) -> None:
    await process(database, [[announced(DEVICES[:1])]])
    await process(database, [[message(report_body(OPERATION, DEVICES[0], "PROCESSING"))]])
    timeout = {"state": State.TIMEOUT, "cause": None}
    async with database.write() as connection:
        await connection.execute(update(device_operations).values(timeout))

    await process(database, [[message(report_body(OPERATION, DEVICES[0], "FAILURE", reason="late"))]])

    assert await groups_of(database) == [("FAILURE", None, "late", 1)]
    async with database.read() as connection:
        assert await wrong_groups(connection) == {}


async def test_the_service_is_that_of_the_report_that_moved_a_device_operation(database: Database) -> None:
    def by(service: str, state: str, device: UUID) -> Message:
        return message({**report_body(OPERATION, device, state), "service_id": service})

    async def services() -> list[str | None]:
        column = device_operations.c
        async with database.read() as connection:
            query = select(column.service_id).order_by(column.device_id)
            return list((await connection.execute(query)).scalars())

    await process(
        database, [[announced(DEVICES[:1])], [by("b", "CREATED", DEVICES[1]), by("c", "CREATED", DEVICES[2])]]
    )
    assert await services() == [None, "b", "c"]
    await process(database, [[by("a", "PROCESSING", DEVICES[0]), by("d", "SUCCESS", DEVICES[2])]])
    await process(database, [[by("e", "DISPATCHED", DEVICES[0]), by("e", "SUCCESS", DEVICES[2])]])
    assert await services() == ["a", "b", "d"]
