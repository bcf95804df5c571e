"""Open pages hear of what has changed within a second, and not more often than twice a second."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.support.letters import ALL
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    announcement_body,
    message,
    process,
    report_body,
)
from worker.api.feed import Feed
from worker.dead_letters.discard import discard
from worker.model import changes
from worker.model.changes import Told
from worker.pages import live
from worker.pages.live import Live, OpenPage
from worker.store.database import Database

OPERATION, OTHER = OPERATIONS[:2]
OF_OPERATION, OF_OTHER = f"operation/{OPERATION}", f"operation/{OTHER}"
OF_DEVICE = f"device/{DEVICES[0]}"
IN_TIME = 1
"""Seconds from a commit to the event, at most."""


@asynccontextmanager
async def pages(database: Database) -> AsyncIterator[Live]:
    feed = Feed(database, database)
    task = asyncio.create_task(feed.run())
    shown = Live(feed)
    try:
        yield shown
    finally:
        await shown.close()
        feed.stop()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Reader:
    """Reads a page's events as they come."""

    def __init__(self, live: Live, *topics: str) -> None:
        self._live = live
        self._page = OpenPage(topics)
        self.found: list[tuple[float, str]] = []
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._live.enter(self._page)
        try:
            while (pending := await self._page.changed(60)) is not None:
                self.found += [(time.monotonic(), topic) for topic in pending]
        finally:
            self._live.leave(self._page)

    async def settle(self) -> None:
        """Wait until what is told at the beginning has been told."""
        seen = -1
        while seen != len(self.found) or seen < 1:
            seen = len(self.found)
            await asyncio.sleep(2 * live.INTERVAL)
        self.found.clear()

    async def hears(self, topic: str) -> float:
        """The seconds until there is an event of a topic."""
        began = time.monotonic()
        while not any(each == topic for _, each in self.found):
            assert time.monotonic() - began < 10 * IN_TIME, self.found
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def report(database: Database, operation: UUID = OPERATION, state: str = "CREATED", device: int = 0) -> None:
    await process(database, [[message(report_body(operation, DEVICES[device], state))]])


@pytest.mark.alone
async def test_a_commit_is_told_within_a_second_to_those_whom_it_concerns(database: Database) -> None:
    await report(database)
    async with pages(database) as shown:
        reader, other = Reader(shown, live.OPERATIONS, OF_OPERATION), Reader(shown, OF_OTHER)
        await asyncio.gather(reader.settle(), other.settle())

        await report(database, state="SUCCESS")

        assert await reader.hears(OF_OPERATION) < IN_TIME
        assert await reader.hears(live.OPERATIONS) < IN_TIME
        assert other.found == []
        await reader.close()
        await other.close()


async def test_each_page_is_first_told_of_all_of_its_topics_as_they_may_have_changed_since(
    database: Database,
) -> None:
    async with pages(database) as shown:
        reader = Reader(shown, OF_OTHER, live.SYSTEM)
        assert await reader.hears(OF_OTHER) < IN_TIME
        assert await reader.hears(live.SYSTEM) < IN_TIME
        await reader.close()


@pytest.mark.alone
async def test_many_commits_are_told_at_once_and_then_twice_a_second_and_the_last_one_is_told(
    database: Database,
) -> None:
    async with pages(database) as shown:
        reader = Reader(shown, live.OPERATIONS)
        await reader.settle()
        began = time.monotonic()
        while time.monotonic() - began < 2:
            await process(database, [[message(announcement_body(OPERATION), ANNOUNCEMENT)]])
        last = time.monotonic()
        await asyncio.sleep(IN_TIME)
        times = [at for at, _ in reader.found]
        assert times[0] - began < IN_TIME
        assert times[-1] > last - live.INTERVAL
        assert all(after - before > 0.9 * live.INTERVAL for before, after in pairwise(times))
        assert len(times) >= 4
        await reader.close()


@pytest.mark.alone
async def test_what_no_change_tells_of_is_told_too(database: Database) -> None:
    await process(database, [[message(b"no JSON")]])
    await report(database)
    await report(database, state="SUCCESS")
    async with pages(database) as shown:
        reader = Reader(shown, live.DEAD_LETTERS, OF_DEVICE)
        await reader.settle()

        await discard(database, ALL, "because", actor="tests")
        assert await reader.hears(live.DEAD_LETTERS) < IN_TIME
        assert OF_DEVICE not in [each for _, each in reader.found]

        reader.found.clear()
        await report(database, state="DISPATCHED")  # late
        assert await reader.hears(OF_DEVICE) < IN_TIME
        await reader.close()


async def test_without_a_log_of_changes_operations_are_shown_anew_all_the_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_told", Told.NONE)
    async with pages(database) as shown:
        reader = Reader(shown, live.OPERATIONS)
        await reader.hears(live.OPERATIONS)
        for _ in range(3):
            reader.found.clear()
            assert await reader.hears(live.OPERATIONS) < IN_TIME
        await reader.close()


async def test_a_page_that_is_closed_leaves_nothing_behind(database: Database) -> None:
    async with pages(database) as shown:
        versions = shown.versions([live.OPERATIONS])
        reader = Reader(shown, live.OPERATIONS)
        await reader.hears(live.OPERATIONS)
        await reader.settle()
        await reader.close()
        assert shown.versions([live.OPERATIONS]) == versions
        await shown.close()
        assert len(asyncio.all_tasks()) <= 4  # this test, the feed and what it runs
        async with database.read() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1


async def test_streams_end_when_the_server_stops(database: Database) -> None:
    feed = Feed(database, database)
    running = asyncio.create_task(feed.run())
    shown = Live(feed)
    reader = Reader(shown, live.SYSTEM)
    await reader.hears(live.SYSTEM)
    feed.stop()
    await asyncio.wait_for(reader._task, IN_TIME)
    await shown.close()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_no_more_pages_are_open_than_there_is_room_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_PAGES", 2)
    async with pages(database) as shown:
        first, second, third = (OpenPage([live.SYSTEM]) for _ in range(3))
        assert shown.enter(first)
        assert shown.enter(second)
        assert not shown.enter(third)
        shown.leave(first)
        assert shown.enter(third)
        shown.leave(second)
        shown.leave(third)
