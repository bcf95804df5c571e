"""What documents show of histories, and the pages that have the rest; once on each kind of database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    NOW,
    OPERATIONS,
    announcement_body,
    message,
    process,
    report_body,
)
from worker.model.identity import device_operation_id
from worker.model.messages import Message
from worker.store import dead_letters, queries
from worker.store.database import Database
from worker.store.dead_letters import GroupBy
from worker.store.device_filter import DeviceFilter
from worker.store.pagination import PageRequest
from worker.store.selection import Selection

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
ID = device_operation_id(OPERATION, DEVICE)
HOUR = timedelta(hours=1)


def report(state: str, at: datetime, **more: object) -> Message:
    return message(report_body(OPERATION, DEVICE, state, occurred_at=at.isoformat(), **more))


async def documents(database: Database) -> list[Any]:
    """The page of the operation's device operations, and the operation."""
    async with database.read() as connection:
        [(operation, progress)] = await queries.list_operations(connection)
        page = await queries.page_of_device_operations(
            connection, progress, OPERATION, DeviceFilter(), PageRequest()
        )
        return [page.results, operation]


async def test_a_document_has_the_earliest_time_of_each_state_that_was_named(database: Database) -> None:
    reports = [
        report("CREATED", NOW + 2 * HOUR),
        report("SUCCESS", NOW + 5 * HOUR),
        report("CREATED", NOW + HOUR),
        report("SUCCESS", NOW + 6 * HOUR),
        report("TIMEOUT", NOW + 9 * HOUR),
        report("DISPATCHED", NOW - HOUR),
        report("FAILURE", NOW - 5 * HOUR),
    ]
    await process(database, [reports[:3], reports[3:]])

    [[document], _] = await documents(database)

    assert [
        (entry.device_operation_state, entry.created_at - NOW) for entry in document.device_operation_activity
    ] == [
        ("CREATED", HOUR),
        ("DISPATCHED", -HOUR),
        ("TIMEOUT", 9 * HOUR),
        ("SUCCESS", 5 * HOUR),
    ]


async def test_a_repeated_report_with_a_later_time_leaves_the_row_as_it_is(database: Database) -> None:
    await process(database, [[report("CREATED", NOW), report("SUCCESS", NOW + HOUR)]])
    before = await documents(database)

    await process(database, [[report("SUCCESS", NOW + 2 * HOUR), report("CREATED", NOW + HOUR)]])
    assert await documents(database) == before

    await process(database, [[report("SUCCESS", NOW)]])
    assert await documents(database) != before


async def test_a_page_of_documents_reads_no_report(database: Database) -> None:
    """So it costs the same, however many there are."""
    await process(database, [[report("CREATED", NOW), report("SUCCESS", NOW)]])
    before = await documents(database)
    async with database.write() as connection:
        await connection.execute(text("DROP TABLE device_operation_activity"))

    assert await documents(database) == before


async def test_a_device_announced_twice_was_created_at_the_earlier_time(database: Database) -> None:
    at = [(NOW - HOUR).isoformat(), (NOW - 2 * HOUR).isoformat()]
    for sent in ([0, 1], [1, 0]):
        for number in sent:
            body = announcement_body(OPERATION, DEVICES[:1], created_at=at[number])
            await process(database, [[message(body, ANNOUNCEMENT, str(number))]])
        [[document], _] = await documents(database)
        assert [entry.created_at for entry in document.device_operation_activity] == [NOW - 2 * HOUR]


@pytest.mark.parametrize("claimed", ["2099-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"])
async def test_an_operation_that_its_sender_dates_wrong_stands_where_it_came(
    database: Database, claimed: str
) -> None:
    """Between those announced before and after it; the history of its device has what the sender says."""
    times = [NOW - HOUR, NOW, NOW + HOUR]
    for operation, at, more in zip((*OPERATIONS, ID), times, ({}, {"created_at": claimed}, {}), strict=True):
        sent = message(announcement_body(operation, DEVICES[:1], **more), ANNOUNCEMENT)
        await process(database, [[replace(sent, received_at=at)]])

    async with database.read() as connection:
        found = await queries.list_operations(connection)
        device = await queries.get_device_operation(connection, OPERATIONS[1], DEVICE)

    assert [operation.id for operation, _ in found] == [ID, OPERATIONS[1], OPERATIONS[0]]
    assert device is not None
    assert device.created_at == NOW
    assert device.device_operation_activity[0].created_at.year == int(claimed[:4])


async def test_an_announcement_that_its_sender_dates_wrong_leaves_the_time_that_is_known(
    database: Database,
) -> None:
    for number, at in enumerate((NOW - HOUR, datetime(2099, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC))):
        body = announcement_body(OPERATION, created_at=at.isoformat())
        await process(database, [[message(body, ANNOUNCEMENT, str(number))]])

    async with database.read() as connection:
        [(operation, _)] = await queries.list_operations(connection)
    assert operation.created_at == NOW - HOUR


async def test_a_report_that_its_sender_dates_wrong_registers_when_it_came(database: Database) -> None:
    future = datetime(2099, 1, 1, tzinfo=UTC)
    await process(database, [[report("CREATED", future)]])

    [[document], operation] = await documents(database)

    assert (document.created_at, operation.created_at) == (NOW, NOW)
    assert document.device_operation_activity[0].created_at == future


async def test_a_duplicate_that_its_sender_dates_wrong_leaves_no_time_behind(database: Database) -> None:
    duplicate = report("CREATED", datetime(2099, 1, 1, tzinfo=UTC), report_id="one")
    registration = message(report_body(OPERATION, DEVICE, "CREATED"))
    await process(database, [[report("SUCCESS", NOW, report_id="one"), duplicate, registration]])

    [[document], _] = await documents(database)

    times = {entry.device_operation_state: entry.created_at for entry in document.device_operation_activity}
    assert times == {"CREATED": NOW, "SUCCESS": NOW}


async def test_what_waits_is_counted_by_the_database_however_many_operations_it_is_of(database: Database) -> None:
    waiting = [device_operation_id(OPERATION, device) for device in DEVICES]
    for number, operation in enumerate(waiting, 1):
        bodies = [report_body(operation, DEVICE, "SUCCESS", report_id=f"{each}") for each in range(number)]
        await process(database, [map(message, bodies)])

    async with database.read() as connection:
        nothing_stale = await dead_letters.backlog(connection, NOW)
        all_stale = await dead_letters.backlog(connection, NOW + HOUR)
        longest = await dead_letters.parked(connection, NOW, 2)
        groups = await dead_letters.count_by(connection, Selection(), GroupBy.OPERATION, 1)

    assert (nothing_stale.reports, nothing_stale.operations) == (6, 3)
    assert (nothing_stale.stale, nothing_stale.stale_operations) == (0, 0)
    assert (all_stale.stale, all_stale.stale_operations) == (6, 3)
    assert [group.operation_id for group in longest] == sorted(waiting)[:2]
    assert nothing_stale.oldest == longest[0].oldest == NOW
    assert [(group.value, group.count) for group in groups] == [(waiting[2], 3)]
