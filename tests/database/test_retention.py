"""Retention removes what is past its time, and nothing that anybody still waits for."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from tests.support.databases import read
from tests.support.letters import ALL, conflict, history, rows
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
from worker.dead_letters.discard import discard, restore
from worker.dead_letters.replay import replay
from worker.dead_letters.retention import PRUNED, Retention
from worker.model.messages import Message
from worker.model.outcomes import Action, Reason, Status
from worker.model.timing import milliseconds
from worker.store import dead_letters as letters
from worker.store import minutes, queries
from worker.store.database import Database
from worker.store.device_filter import DeviceFilter
from worker.store.pagination import PageRequest
from worker.store.selection import Selection
from worker.store.tables import (
    activity,
    dead_letters,
    device_operations,
    operation_activity,
    operation_minutes,
    operations,
)

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
EVERYTHING = Retention(timedelta(seconds=-1), timedelta(seconds=-1), timedelta(seconds=-1))
"""Whatever may go goes, however young."""
NOTHING = dict.fromkeys(PRUNED, 0)
DAY = timedelta(days=1)
DISCARDED = Selection(status=Status.DISCARDED)


def report(state: str, device: int = 0, **more: object) -> Message:
    return message(report_body(OPERATION, DEVICES[device], state, **more))


async def count(database: Database, table: str) -> Any:
    async with database.read() as connection:
        return (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()  # noqa: S608


async def age(database: Database) -> None:
    """Make what happened to device operations and operations until now ten days older, by our clock."""
    ago = datetime.now(UTC) - 10 * DAY
    async with database.write() as connection:
        for table in (device_operations, operations):
            await connection.execute(update(table).values(updated_at=ago))
        await connection.execute(update(activity).values(recorded_at=activity.c.recorded_at - 10 * 86_400))


async def documents(database: Database) -> object:
    """Everything that documents show of operations and device operations."""
    async with database.read() as connection:
        found = await queries.list_operations(connection)
        pages = [
            await queries.page_of_device_operations(
                connection, progress, operation.id, DeviceFilter(), PageRequest()
            )
            for operation, progress in found
        ]
    return found, pages


@pytest.fixture
async def stored(database: Database) -> Database:
    """A settled device operation, one that is not, a parked report and a conflict."""
    await process(database, [[report("CREATED"), report("FAILURE"), report("SUCCESS"), report("CREATED", 1)]])
    await process(database, [[report("SUCCESS", 2)]])
    return database


async def test_what_is_open_stays_and_so_does_the_history_of_what_is_not_settled(stored: Database) -> None:
    before = await read(stored)

    pruned = await EVERYTHING.prune(stored)

    after = await read(stored)
    assert pruned == NOTHING | {"activity": 2}
    assert after.dead_letters == before.dead_letters
    assert {id_: found.counters for id_, found in after.operations.items()} == {
        id_: found.counters for id_, found in before.operations.items()
    }
    assert await count(stored, "device_operation_activity") == 1


async def test_what_is_young_stays(stored: Database) -> None:
    await discard(stored, Selection(), "not now", actor="me")

    assert await Retention(DAY, DAY, DAY).prune(stored) == NOTHING


async def test_closed_dead_letters_go_with_their_histories(stored: Database) -> None:
    await discard(stored, Selection(reason=Reason.CONFLICT), "it is right", actor="me")

    assert (await EVERYTHING.prune(stored))["dead_letters"] == 1

    assert await count(stored, "dead_letters") == 1
    assert await count(stored, "dead_letter_history") == 0


async def test_a_report_is_kept_by_when_it_came_and_not_by_the_time_that_its_sender_says(
    database: Database,
) -> None:
    old = report("SUCCESS", report_id="of 2099", occurred_at="2099-01-01T00:00:00Z")
    older = report("SUCCESS", report_id="of 1970", occurred_at="1970-01-01T00:00:00Z")
    young = report("SUCCESS", report_id="young", occurred_at="1970-01-02T00:00:00Z")
    await process(database, [[report("CREATED"), old, older]])
    await age(database)
    await process(database, [[young]])

    assert await Retention(activity=5 * DAY).prune(database) == NOTHING | {"activity": 3}

    assert (await process(database, [[young]])).duplicate == 1
    assert (await process(database, [[old]])).verdicts == {"repeated": 1}


async def test_what_was_recorded_before_there_was_a_time_for_that_goes_by_what_its_sender_said(
    database: Database,
) -> None:
    """Unless that is still to come."""
    yesterday = (datetime.now(UTC) - DAY).isoformat()
    times = ["1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z", yesterday]
    sent = [report("FAILURE", report_id=time, occurred_at=time) for time in times]
    await process(database, [[report("CREATED", occurred_at=times[0]), *sent]])
    await age(database)
    async with database.write() as connection:
        await connection.execute(update(activity).values(recorded_at=None))

    assert await Retention(activity=5 * DAY).prune(database) == NOTHING | {"activity": 3}

    assert (await process(database, [sent])).duplicate == 1


async def test_no_document_loses_what_it_shows(stored: Database) -> None:
    entries = [{"operation_id": OPERATION, "state": "DISPATCHING", "created_at": NOW}] * 150
    async with stored.write() as connection:
        await connection.execute(insert(operation_activity), entries)
    before, total = await documents(stored), await count(stored, "operation_activity")

    pruned = await EVERYTHING.prune(stored)

    assert (pruned["activity"], pruned["operation_activity"]) == (2, total - 100)
    assert await documents(stored) == before


async def test_announcements_are_forgotten_when_their_operation_has_been_over_for_long(database: Database) -> None:
    announcements = [message(announcement_body(each, DEVICES[:1]), ANNOUNCEMENT, "one") for each in OPERATIONS]
    await process(database, [announcements, [report("SUCCESS")]])
    await age(database)

    assert (await Retention(activity=11 * DAY).prune(database))["announcements"] == 0
    assert (await Retention(activity=5 * DAY).prune(database))["announcements"] == 1

    assert await count(database, "announcements") == 1


async def test_of_an_open_dead_letter_the_latest_entries_stay_and_how_it_was_received(stored: Database) -> None:
    for _ in range(2):
        await replay(stored, Selection(reason=Reason.CONFLICT), actor="me")
    [row] = await rows(stored, Selection(reason=Reason.CONFLICT))
    entries = (await history(stored, row))[1:] * 75
    async with stored.write() as connection:
        await letters.write_history(connection, [(row.id, entry) for entry in entries])

    assert (await Retention(closed=DAY).prune(stored))["dead_letter_history"] == 0
    assert (await Retention(closed=-DAY).prune(stored))["dead_letter_history"] == 52

    left = await history(stored, row)
    assert (len(left), left[0].action) == (101, Action.RECEIVED)


async def test_reports_that_come_again_after_their_history_is_gone_change_nothing(stored: Database) -> None:
    await process(stored, [[report("PROCESSING")]])  # late, and shows the dispatch
    before = await read(stored)
    await EVERYTHING.prune(stored)

    await process(stored, [[report("PROCESSING"), report("FAILURE"), report("CREATED"), report("SUCCESS")]])

    after = await read(stored)
    assert after.operations[OPERATION].counters == before.operations[OPERATION].counters
    assert after.dead_letters == before.dead_letters


async def test_a_parked_report_is_taken_up_however_much_was_pruned(stored: Database) -> None:
    await EVERYTHING.prune(stored)

    await process(stored, [[report("CREATED", 2)]])

    assert (await read(stored)).operations[OPERATION].devices[DEVICES[2]].state == "SUCCESS"


async def test_what_has_no_body_any_more_is_not_restored_also_not_by_who_read_it_before(stored: Database) -> None:
    await discard(stored, Selection(), "not now", actor="me")
    async with stored.read() as connection:
        with_bodies = (await connection.execute(select(dead_letters))).all()
    assert (await Retention(bodies=timedelta(seconds=-1)).prune(stored))["bodies"] == 2

    assert await restore(stored, DISCARDED, actor="me") == 0
    async with stored.write() as connection:
        await letters.set_status(
            connection, with_bodies, Status.OPEN, Action.RESTORED, "", "me", datetime.now(UTC)
        )

    assert not (await read(stored)).dead_letters


async def test_a_report_whose_dead_letter_was_emptied_is_a_dead_letter_again_when_it_comes_again(
    database: Database,
) -> None:
    _, body = await conflict(database, report_id="one")
    await discard(database, ALL, "a test", actor="me")
    await Retention(bodies=timedelta(seconds=-1)).prune(database)

    tally = await process(database, [[message(body)]])

    assert (tally.dead_lettered, tally.duplicate) == ({"conflict": 1}, 0)
    assert [row.report_id for row in await rows(database)] == ["one"]


async def keep_minutes(database: Database, hours: dict[int, str]) -> None:
    """Give the operation minutes in hours of these ages, in hours."""
    present = milliseconds(datetime.now(UTC)) // 3_600_000
    rows = [
        {"operation_id": OPERATION, "hour": present - ago, "settled": settled} for ago, settled in hours.items()
    ]
    async with database.write() as connection:
        await connection.execute(insert(operation_minutes), rows)


async def test_minutes_are_thinned_after_a_day_and_hours_removed_after_a_month(stored: Database) -> None:
    last_day = {0: "1=2 3=4", 23: "0=1"}
    older = {26: "0=1 59=8", 27: "*=5", 28: "*=5 0=1", 24 * 30: "7=7"}
    await keep_minutes(stored, {**last_day, **older, 24 * 32: "0=1", 24 * 40: "*=3"})
    retention = Retention(thins_minutes=True)

    assert await retention.prune(stored) == NOTHING | {"minutes": 5}

    async with stored.read() as connection:
        query = select(operation_minutes.c.settled).order_by(operation_minutes.c.hour)
        assert (await connection.scalars(query)).all() == ["*=7", "*=6", "*=5", "*=9", "0=1", "1=2 3=4"]
        course = await minutes.course_of(connection, OPERATION)
    assert course is not None
    assert [each.minutes for each in course.minutes] == [60, 60, 60, 60, 1, 1, 1, 1]
    assert await retention.prune(stored) == NOTHING


async def test_minutes_stay_as_they_are_where_nothing_is_to_be_thinned(stored: Database) -> None:
    await keep_minutes(stored, {26: "0=1 59=8"})

    assert await EVERYTHING.prune(stored) == NOTHING | {"activity": 2}
