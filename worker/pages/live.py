"""Says which topics have changed, to all open pages: at once, then at most twice a second for each topic.

What the log of changes tells comes from the feed of the HTTP API. Dead letters that are replayed or discarded and
reports that change no counter are not in that log: while a page wants to know, marks in the database are compared.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import UUID

import structlog

from worker.api.feed import RETRY, Feed
from worker.api.follower import Follower
from worker.api.recent import Recent
from worker.api.stream import HEARTBEAT
from worker.model.changes import ChangeType, Told, told
from worker.store import page_marks
from worker.store.change_log import extent
from worker.store.database import Database
from worker.store.errors import is_database_error

OPERATIONS, OPERATION, DEVICE, DEAD_LETTERS, SYSTEM = "operations", "operation", "device", "dead-letters", "system"
"""Topics; one of an operation or a device is `operation/<id>` or `device/<id>`. The part before `/` is the name of
the event."""
MAX_TOPICS = 10
"""Topics of a page."""
MAX_PAGES = 500
"""Open pages: each holds a connection of the server."""
INTERVAL = 0.5
"""Seconds between two events of a topic."""
LOOK = 0.4
"""Seconds between two comparisons of marks."""
OF_SYSTEM = 2
"""Seconds between two renewals of the system page, of which something always changes."""
TICK = 10
"""Seconds between two renewals of everything, as an operation may be stalled by then."""

_log = structlog.get_logger()


class OpenPage:
    """A page that is open, and the topics that it shows."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = frozenset(topics)
        self._pending = set(self.topics)  # what has changed since the page was rendered
        self._woken = asyncio.Event()
        self._is_ended = False

    def tell(self, topic: str) -> None:
        """A topic has changed."""
        self._pending.add(topic)
        self._woken.set()

    def end(self) -> None:
        """End its stream."""
        self._is_ended = True
        self._woken.set()

    async def changed(self, seconds: float) -> Collection[str] | None:
        """The topics that have changed since the last call; waits for one, at most some seconds.

        At first all of them. None once the page has ended.
        """
        if not self._pending and not self._is_ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
        self._woken.clear()
        pending, self._pending = self._pending, set()
        return None if self._is_ended else pending


class Live:
    """All open pages of a process, and how often each topic has changed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._database: Database = feed.database
        self._pages: defaultdict[str, set[OpenPage]] = defaultdict(set)
        self._count = 0
        self._emitted: dict[str, float] = {}
        self._scheduled: dict[str, asyncio.TimerHandle] = {}
        self._versions: dict[str, int] = {}
        self._numbers = count(1)
        self._listener: _Listener | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def enter(self, page: OpenPage) -> bool:
        """Tell a page of its topics until `leave`; returns whether there is room for it."""
        if self._count >= MAX_PAGES:
            return False
        self._count += 1
        for topic in page.topics:
            self._pages[topic].add(page)
        if self._listener is None or self._listener.is_stopped:
            self._listener = _Listener(self)
            task = asyncio.create_task(self._run(self._listener))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    def leave(self, page: OpenPage) -> None:
        """Tell a page of nothing more."""
        self._count -= 1
        for topic in page.topics:
            self._pages[topic].discard(page)
            if not self._pages[topic]:
                self._forget(topic)
        if not self._pages and self._listener is not None:
            # Not cancelled: a query that is interrupted costs its connection.
            ended, self._listener = self._listener, None
            ended.stop()

    def versions(self, topics: Iterable[str]) -> tuple[int, ...]:
        """A number of each topic, another one after each event of it."""
        return tuple(self._versions.get(topic, 0) for topic in topics)

    def publish(self, topic: str) -> None:
        """A topic has changed. To be called after acts of the page too, so that other open pages show them."""
        if topic not in self._pages or topic in self._scheduled:
            return
        wait = self._emitted.get(topic, 0) + INTERVAL - time.monotonic()
        if wait > 0:
            self._scheduled[topic] = asyncio.get_running_loop().call_later(wait, self._emit, topic)
        else:
            self._emit(topic)

    def publish_all(self) -> None:
        """Every topic may have changed."""
        for topic in tuple(self._pages):
            self.publish(topic)

    def _emit(self, topic: str) -> None:
        self._scheduled.pop(topic, None)
        self._emitted[topic], self._versions[topic] = time.monotonic(), next(self._numbers)
        for page in self._pages.get(topic, ()):
            page.tell(topic)

    def _forget(self, topic: str) -> None:
        del self._pages[topic]
        self._emitted.pop(topic, None)
        self._versions.pop(topic, None)
        if (scheduled := self._scheduled.pop(topic, None)) is not None:
            scheduled.cancel()

    async def close(self) -> None:
        """Wait until nothing is read any more for pages that have left."""
        await asyncio.gather(*self._tasks)

    async def _run(self, listener: "_Listener") -> None:
        """Tell of changes until all pages have left or the server stops."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(listener))
            tasks.create_task(self._watch(listener))

    async def _follow(self, follower: "_Listener") -> None:
        """Follow the log of changes, as soon as there is room for one more follower."""
        is_counted = False
        try:
            while not follower.is_stopped:
                is_counted = is_counted or self._feed.enter(follower)
                if is_counted and not follower.is_live and told() is not Told.NONE:
                    await self._join(follower)
                await follower.wait(HEARTBEAT)
        finally:
            self._feed.depart(follower)
        if follower is not self._listener:  # all pages have left; others may have come
            return
        for page in {page for pages in self._pages.values() for page in pages}:
            page.end()

    async def _join(self, follower: Follower) -> None:
        """Follow from the end of the log on; pages are renewed, for what was before."""
        while not follower.is_live and not follower.is_stopped:
            try:
                await self._feed.number()
                async with self._database.read() as connection:
                    follower.position = (await extent(connection)).last
                self._feed.join(follower, is_at_end=True)
            except Exception as error:  # tried again  # noqa: BLE001
                if not is_database_error(error):
                    _log.error("unhandled error", exc_info=error)
            await asyncio.sleep(0 if follower.is_live else RETRY)
        self.publish_all()

    async def _watch(self, listener: "_Listener") -> None:
        """Compare marks, and publish what changes with time."""
        marks: dict[str, tuple[Any, ...]] = {}
        is_down, ticked, shown = False, time.monotonic(), time.monotonic()
        while not listener.is_stopped:
            await asyncio.sleep(LOOK)
            was_down, is_down = is_down, self._database.dependency.error is not None
            now = time.monotonic()
            if is_down != was_down or now - ticked >= TICK:
                ticked = now
                self.publish_all()
            if now - shown >= OF_SYSTEM:
                shown = now
                self.publish(SYSTEM)
            if told() is Told.NONE:
                self._publish_operations()
            before, marks = marks, await self._marks(marks)
            for topic, mark in marks.items():
                if before.get(topic, mark) != mark:
                    self.publish(topic)

    def _publish_operations(self) -> None:
        for topic in tuple(self._pages):
            if topic.startswith(OPERATION):
                self.publish(topic)

    async def _marks(self, before: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        """The marks of what open pages show; the former ones if the database is away."""
        devices = [UUID(topic.partition("/")[2]) for topic in self._pages if topic.startswith(f"{DEVICE}/")]
        found: dict[str, tuple[Any, ...]] = {}
        if not devices and DEAD_LETTERS not in self._pages:
            return found
        try:
            async with self._database.read() as connection:
                if DEAD_LETTERS in self._pages:
                    found[DEAD_LETTERS] = await page_marks.of_dead_letters(connection)
                if devices:
                    of_devices = await page_marks.of_devices(connection, devices)
                    found |= {f"{DEVICE}/{id_}": of_devices.get(id_, ()) for id_ in devices}
        except Exception as error:  # tried again  # noqa: BLE001
            if not is_database_error(error):
                _log.error("unhandled error", exc_info=error)
            return before
        return found


class _Listener(Follower):
    """Follows all changes for the open pages: takes which topics have changed, and no change."""

    is_patient = True

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live

    def tell(self, change: Recent) -> bool:
        """Publish the topics of a change; nothing is left to be sent."""
        self.position = max(self.position, change.position)
        if change.type == ChangeType.DEAD_LETTERS_ADDED:
            self._live.publish(DEAD_LETTERS)
            self._live.publish(OPERATIONS)  # parked reports
        else:
            self._live.publish(OPERATIONS)
            self._live.publish(f"{OPERATION}/{change.of}")
        return False
