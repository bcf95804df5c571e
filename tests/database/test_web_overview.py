"""A page of operations says of each what the queries of one operation say, and reads a bounded number of rows."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import insert

from statemachine import State
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    REPORT,
    announcement_body,
    message,
    process,
    report_body,
)
from worker.dead_letters.retention import PRUNED, Retention
from worker.model.pace import pace
from worker.store import audit, dead_letters, due, minutes, overview
from worker.store.database import Database
from worker.store.operation_filter import OperationFilter
from worker.store.pagination import Cursor, Ordering, PageRequest
from worker.store.tables import audit_log

FIRST, SECOND = OPERATIONS[:2]
UNKNOWN = UUID(int=1)


async def announce(database: Database, operation: UUID, devices: list[UUID], **fields: object) -> None:
    await process(database, [[message(announcement_body(operation, devices, **fields), ANNOUNCEMENT)]])


async def report(database: Database, operation: UUID, device: UUID, state: str) -> None:
    await process(database, [[message(report_body(operation, device, state), REPORT)]])


async def rows(database: Database) -> list[overview.OperationRow]:
    async with database.read() as connection:
        return await overview.rows(connection, [FIRST, UNKNOWN, SECOND])


@pytest.fixture
async def stored(database: Database) -> Database:
    """An operation with timeouts that has tripped, and one without, which others wait for."""
    abort = {"failed_percent": 10, "min_settled": 1, "action": "notify"}
    await announce(database, FIRST, DEVICES[:3], timeouts={"total": 3_600}, abort=abort)
    await report(database, FIRST, DEVICES[0], "FAILURE")
    await announce(database, SECOND, DEVICES[:1])
    await report(database, SECOND, DEVICES[1], "SUCCESS")
    await report(database, SECOND, DEVICES[2], "SUCCESS")
    return database


async def test_each_row_says_what_the_queries_of_one_operation_say(stored: Database) -> None:
    first, second = await rows(stored)

    async with stored.read() as connection:
        for row, operation in ((first, FIRST), (second, SECOND)):
            course = await minutes.course_of(connection, operation)
            assert course is not None
            assert row.operation.id == operation
            assert row.progress.counters == course.counters
            assert row.pace.rate == pytest.approx(pace(course).rate, rel=0.1)
            shown = await due.shown(connection, operation)
            assert (row.next_timeout and row.next_timeout.at) == shown.next_at
            parked = await dead_letters.parked(connection, datetime.now(UTC), 1, operation)
            assert row.parked == sum(each.count for each in parked)
    assert first.progress.counters.in_state(State.FAILURE) == 1
    assert "10%" in first.tripped
    assert (second.tripped, second.next_timeout, second.parked) == ("", None, 2)


async def test_what_is_beyond_what_is_looked_at_is_said_to_be_later_or_more(
    stored: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await announce(stored, UUID(int=7), [UUID(int=number) for number in range(5)], timeouts={"total": 60})
    monkeypatch.setattr(overview, "TIMEOUTS_READ", 3)
    monkeypatch.setattr(overview, "MOST_PARKED", 1)

    first, second = await rows(stored)

    assert first.next_timeout is not None
    assert first.next_timeout.is_later
    assert first.next_timeout.at < datetime.now(UTC) + timedelta(seconds=61)
    assert (second.next_timeout, second.parked) == (None, 1)


async def test_pages_follow_one_another_as_those_of_the_api_do(stored: Database) -> None:
    async with stored.read() as connection:
        asked = PageRequest(1, 0, Ordering.CREATED_AT_DESCENDING, Cursor(None))
        page = await overview.page(connection, OperationFilter(), asked)
        assert page.next is not None
        cursor = Cursor.parse(str(page.next["cursor"]))
        following = await overview.page(connection, OperationFilter(), PageRequest(1, 0, asked.ordering, cursor))
    assert [row.operation.id for row in (*page.results, *following.results)] == [SECOND, FIRST]
    assert (page.count, page.previous, following.next) == (2, None, None)


async def test_the_audit_log_is_kept_for_its_time(database: Database) -> None:
    async with database.write() as connection:
        for days in (400, 366, 364):
            values = {"who": "ops", "request_id": "x", "action": "a", "target": f"{days}", "detail": {}}
            await connection.execute(
                insert(audit_log).values(at=datetime.now(UTC) - timedelta(days=days), **values)
            )
        await audit.add(connection, "ops", "y", "operation.cancel", "4711", {"reason": "é"})

    assert await Retention(audit=audit.KEPT).prune(database) == dict.fromkeys(PRUNED, 0) | {"audit_log": 2}

    async with database.read() as connection:
        latest, before = await audit.latest(connection, 10)
        assert [each.target for each in await audit.latest(connection, 10, before=latest.id)] == [before.target]
        assert await audit.latest(connection, 10, target="4711") == [latest]
    assert (latest.who, latest.request_id, latest.action, latest.detail) == (
        "ops",
        "y",
        "operation.cancel",
        {"reason": "é"},
    )
    assert datetime.now(UTC) - latest.at < timedelta(minutes=1)
