"""What settles is counted in the minute in which it does: nothing is lost, and nothing counted twice."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from statemachine import Counters
from tests.support.databases import clear
from tests.support.elapsing import elapse
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
from tests.support.strategies import Fleet, arrangements
from worker.model import minutes
from worker.store import batch, recount
from worker.store.bulk import clock_of
from worker.store.database import Database
from worker.store.tables import operation_minutes, operations

pytestmark = pytest.mark.each_database(full=True)
OPERATION = OPERATIONS[0]
ONE = Counters(in_processing=-1, in_success=1, success_device_count=1)
MINUTE = 60_000


async def kept(database: Database, operation: UUID = OPERATION) -> list[minutes.Settled]:
    """The minutes that are over."""
    query = select(operation_minutes.c.hour, operation_minutes.c.settled)
    async with database.read() as connection:
        found = await connection.execute(query.where(operation_minutes.c.operation_id == operation))
        return minutes.read((hour, text) for hour, text in found)


async def current(database: Database) -> tuple[int, int, int]:
    """The current minute, how many settled in it, and when something moved."""
    query = select(operations.c.minute, operations.c.minute_settled, operations.c.moved_at)
    async with database.read() as connection:
        minute, settled, moved_at = (await connection.execute(query.where(operations.c.id == OPERATION))).one()
        return minute, settled, moved_at


async def count(database: Database, clock: int, counters: Counters = ONE) -> None:
    """Count for the operation, at a moment in milliseconds since 1970."""
    async with database.write() as connection:
        await batch.write(connection, (), (), {OPERATION: counters}, datetime.now(UTC), clock, is_told=False)


@pytest.fixture
async def announced(database: Database) -> Database:
    """An operation of which nothing has settled."""
    await process(database, [[message(announcement_body(OPERATION, DEVICES), ANNOUNCEMENT)]])
    return database


@given(arrangement=arrangements(), passing=st.lists(st.integers(-3, 200), min_size=1))
@settings(max_examples=12)
async def test_all_minutes_add_up_to_what_has_settled(
    database: Database, arrangement: tuple[Batches, Fleet], passing: list[int]
) -> None:
    await clear(database)
    for number, each in enumerate(arrangement[0]):
        await elapse(database, 60 * passing[number % len(passing)])
        await process(database, [each])

    async with database.read() as connection:
        rows = (await connection.execute(select(operations))).all()
    for row in rows:
        settled = Counters(*(getattr(row, name) for name in Counters._fields)).settled_device_count
        over = await kept(database, row.id)
        assert sum(each.number for each in over) + row.minute_settled == settled


async def test_what_settles_in_one_minute_is_counted_together_and_the_next_minute_keeps_it(
    announced: Database,
) -> None:
    for clock in (100 * MINUTE, 100 * MINUTE + 59_999, 101 * MINUTE, 170 * MINUTE, 171 * MINUTE):
        await count(announced, clock)

    assert await kept(announced) == [(100, 2, 1), (101, 1, 1), (170, 1, 1)]
    assert await current(announced) == (171, 1, 171 * MINUTE)


async def test_a_minute_takes_no_more_than_fifty_bytes(announced: Database) -> None:
    for minute in range(121):
        await count(announced, (600 + minute) * MINUTE, Counters(in_success=10_000))

    async with announced.read() as connection:
        texts = (await connection.scalars(select(operation_minutes.c.settled))).all()
    assert len(texts) == 2
    assert sum(len(each) + 200 for each in texts) <= 50 * 120, "with 200 for a row and its key, which is ample"


async def test_a_clock_that_is_a_little_behind_counts_for_the_same_minute(announced: Database) -> None:
    for clock in (100 * MINUTE, 98 * MINUTE, 101 * MINUTE):
        await count(announced, clock)

    assert await kept(announced) == [(100, 2, 1)]


async def test_a_clock_that_was_far_ahead_is_forgotten(announced: Database) -> None:
    for clock in (100 * MINUTE, 9_000 * MINUTE, 101 * MINUTE, 102 * MINUTE):
        await count(announced, clock)

    assert await kept(announced) == [(100, 1, 1), (101, 1, 1), (9_000, 1, 1)]


async def test_what_moves_without_settling_is_no_minute(announced: Database) -> None:
    await count(announced, 100 * MINUTE, Counters(in_created=-1, in_processing=1))
    await count(announced, 101 * MINUTE, Counters())  # as an announcement that changes nothing of devices

    assert await current(announced) == (0, 0, 100 * MINUTE)
    assert await kept(announced) == []


async def test_a_recount_is_no_time_at_which_something_settled(announced: Database) -> None:
    await count(announced, 100 * MINUTE)  # a device operation that is not there

    _, drifted = await recount.find_drift(announced)
    await recount.fix_drift(announced, drifted)

    assert await current(announced) == (100, 1, 100 * MINUTE)


async def test_the_last_report_of_a_batch_is_counted_by_the_databases_clock(announced: Database) -> None:
    before = await now(announced)
    await process(announced, [[message(report_body(OPERATION, DEVICES[0], "SUCCESS"))]])
    after = await now(announced)

    minute, settled, moved_at = await current(announced)

    assert before <= moved_at <= after
    assert (minute, settled) == (moved_at // MINUTE, 1)


async def now(database: Database) -> int:
    """The database's clock, in milliseconds since 1970."""
    async with database.read() as connection:
        query = text(f"SELECT {clock_of(connection.dialect.name)}")
        found: int = (await connection.execute(query)).scalar_one()
    return found
