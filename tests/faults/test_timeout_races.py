"""Timeouts, and what others write to the same operation at the same time."""

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import delete

from tests.support.sending import ANNOUNCEMENT, announcement_body, message, report_body
from worker.model.messages import Message
from worker.model.outcomes import Tally
from worker.model.parsing import parse
from worker.processing import transaction
from worker.processing.decider import Decider
from worker.processing.decisions import Decisions
from worker.processing.expiry import Expirer, all_of_them, time_out
from worker.processing.splitting import WriteTransactions, process_items
from worker.store.database import Database
from worker.store.due import outlook
from worker.store.tables import operation_tasks

HOUR = 3_600


async def take(database: Database, sent: Message) -> None:
    """Process a message."""
    await process_items(WriteTransactions(database), parse(sent))


async def test_a_device_operation_that_is_over_no_longer_is_not_timed_out(database: Database) -> None:
    """An announcement has put it off, which nothing is armed with as yet; nor will be, without the task."""
    operation, devices = uuid4(), [uuid4() for _ in range(3)]
    await take(
        database, message(announcement_body(operation, devices, timeouts={"total": 0.001}), ANNOUNCEMENT, "1")
    )
    await asyncio.sleep(0.1)
    await take(database, message(announcement_body(operation, timeouts={"total": HOUR}), ANNOUNCEMENT, "2"))
    async with database.read() as connection:
        clock = (await outlook(connection)).clock
    assert await time_out(database, clock) is None  # it waits for the task
    async with database.write() as connection:
        await connection.execute(delete(operation_tasks))
    tally = await time_out(database, clock)
    assert tally is not None
    assert not tally.timeouts
    assert await time_out(database, clock) is None  # their rows have the later moment
    async with database.read() as connection:
        first = (await outlook(connection)).first
    assert first is not None
    assert clock + 1_000 * (HOUR - 60) < first


async def test_a_registration_and_an_announcement_of_timeouts_at_the_same_time(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The announcement does not see the device, and the registration has read that there are no timeouts."""
    database = postgresql_database
    operation, device = uuid4(), uuid4()
    await take(database, message(announcement_body(operation, [uuid4()]), ANNOUNCEMENT, "1"))
    announced = asyncio.Event()
    decide, has_loaded = transaction.decide, asyncio.Event()

    async def decide_late(items: object, decider: Decider) -> Decisions:
        monkeypatch.setattr(transaction, "decide", decide)
        has_loaded.set()
        await announced.wait()
        return await decide(items, decider)  # type: ignore[arg-type]

    monkeypatch.setattr(transaction, "decide", decide_late)
    registering = asyncio.create_task(take(database, message(report_body(operation, device, "CREATED"))))
    await has_loaded.wait()
    await take(database, message(announcement_body(operation, timeouts={"total": 0.001}), ANNOUNCEMENT, "2"))
    tally = Tally()
    expirer = Expirer(database, all_of_them, tally.add)
    await expirer.act()
    announced.set()
    await registering
    await asyncio.sleep(0.1)
    await expirer.act()
    assert tally.timeouts.total() == 2


async def test_timeouts_do_not_wait_for_tasks(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example to update the timeouts of an operation with a million devices."""
    database = postgresql_database
    await take(
        database, message(announcement_body(uuid4(), [uuid4()], timeouts={"total": 0.5}), ANNOUNCEMENT, "1")
    )
    large = uuid4()
    await take(database, message(announcement_body(large, [uuid4()], timeouts={"total": HOUR}), ANNOUNCEMENT, "2"))
    await take(database, message(announcement_body(large, timeouts={"total": 2 * HOUR}), ANNOUNCEMENT, "3"))
    monkeypatch.setattr(Expirer, "_arm", lambda *_: asyncio.sleep(60))
    tally, stop = Tally(), asyncio.Event()
    running = asyncio.create_task(Expirer(database, all_of_them, tally.add).run(stop))
    try:
        async with asyncio.timeout(15):
            while tally.timeouts.total() == 0:  # noqa: ASYNC110  # no event comes
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.wait([running])
