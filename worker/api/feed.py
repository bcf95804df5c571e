"""Reads new changes once for all who follow them over HTTP, while there are some."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

import structlog

from worker.api import frames
from worker.api.follower import Follower
from worker.api.recent import Recent, RecentChanges
from worker.store.change_log import LoggedChange
from worker.store.change_page import missed_after, number_all, read_page
from worker.store.change_signal import ChangeSignal
from worker.store.database import Database
from worker.store.errors import is_database_error

MAX_FOLLOWERS = 1_000
"""Maximum number of followers: each holds a connection of the server."""
GATHERED = 0.02
"""Seconds between a signal and the look, in which commits gather, and a worker may number them."""
INTERVAL = 0.05
"""Minimum seconds between two looks: batches commit every few milliseconds."""
PATIENT_INTERVAL = 0.25
"""The same while all live followers are patient."""
SHARE = 0.001
"""Minimum seconds between two looks for each follower that is sent something: many of them leave processor time
to reports."""
TOGETHER = 20
"""Followers that are woken at a time, before a pause of their `SHARE`."""
PORTION = 1_000
"""Changes that are read at a time."""
PORTION_SIZE = 1_000_000
"""Bytes of them, about."""
HELD = 8_000_000
"""Bytes of changes that are held for followers that are slower, about."""
READERS = 2
"""Pages of the log that followers read at a time, so that other calls have connections of the pool."""
RETRY = 1
"""Seconds between retries while the database is unavailable."""

_log = structlog.get_logger()


class Feed:
    """Tells live followers of new changes, while `run` is running.

    `writing` is the same database with a pool for writers.
    """

    def __init__(self, database: Database, writing: Database) -> None:
        self.database = database
        self._writing = writing
        self._signal = ChangeSignal(database)
        self._followers: set[Follower] = set()
        self._live: defaultdict[str | None, set[Follower]] = defaultdict(set)
        self._has_live = asyncio.Event()
        self._position = 0
        """The position up to which live followers know everything."""
        self._stopped = False
        self.recent = RecentChanges(HELD)
        self.reading = asyncio.Semaphore(READERS)

    @property
    def count(self) -> int:
        """The number of followers."""
        return len(self._followers)

    @property
    def is_full(self) -> bool:
        """Whether `MAX_FOLLOWERS` is reached."""
        return self.count >= MAX_FOLLOWERS

    def enter(self, follower: Follower) -> bool:
        """Count a follower, until `depart`; returns whether there is room for it."""
        if self.is_full:
            return False
        self._followers.add(follower)
        if self._stopped:
            follower.stop()
        return True

    def depart(self, follower: Follower) -> None:
        """Count a follower no longer."""
        self._followers.discard(follower)
        self.leave(follower)

    def join(self, follower: Follower, *, is_at_end: bool) -> None:
        """Make a follower live, unless it has to read more of the log before.

        `is_at_end` is whether it was at the end of the log a moment ago.
        """
        position = follower.position
        if not self._has_live.is_set():
            if not is_at_end:
                return
            self._position = position
            self.recent.clear(position)
            self._has_live.set()
        if self.recent.forgotten <= position and (is_at_end or position <= self._position):
            follower.is_live = True
            self._live[follower.of].add(follower)
            any(map(follower.tell, self.recent.since(position + 1, follower.of)))
            follower.wake()

    def leave(self, follower: Follower) -> None:
        """Tell a follower of nothing more."""
        theirs = self._live[follower.of]
        theirs.discard(follower)
        if not theirs:
            del self._live[follower.of]
        if not self._live:
            self._has_live.clear()

    def position_of(self, follower: Follower) -> int:
        """The position up to which a live follower that has taken everything has all that it wants."""
        return max(follower.position, self._position)

    async def number(self) -> None:
        """Number what is committed. Raises the database's errors."""
        await number_all(self.database, self._writing)

    def stop(self) -> None:
        """End all followers."""
        self._stopped = True
        for follower in self._followers:
            follower.stop()

    async def run(self) -> None:
        """Tell followers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._signal.run())
            while True:
                await self._has_live.wait()
                try:
                    await self._look()
                except Exception as error:  # retried, or followers would wait for ever  # noqa: BLE001
                    if not is_database_error(error):
                        _log.error("unhandled error", exc_info=error)
                    await asyncio.sleep(RETRY)

    async def _look(self) -> None:
        """Read what is new and tell of it; wait until there may be more. Raises the database's errors."""
        position = self._position
        await self.number()
        async with self.database.read() as connection:
            page = await read_page(connection, position, PORTION, PORTION_SIZE)
        if position != self._position:  # all have left meanwhile, and others have come
            return
        if missed_after(position, page.extent) is not None:
            self._end_live()
            return
        told = self._tell(page.changes)
        self._position = page.end
        await self._wake(told)
        await asyncio.sleep(self._interval() - len(told) * SHARE)
        if page.is_last:
            await self._signal.wait()
            await asyncio.sleep(GATHERED)

    def _interval(self) -> float:
        is_patient = all(follower.is_patient for follower in chain.from_iterable(self._live.values()))
        return PATIENT_INTERVAL if is_patient else INTERVAL

    def _tell(self, found: Iterable[LoggedChange]) -> Sequence[Follower]:
        """Tell followers of changes; returns those that have something to send now, and had nothing before."""
        told: list[Follower] = []
        for change in found:
            frame = frames.of_change(change)
            recent = Recent(change.position, change.aggregateid, change.type, change.sequence, frame)
            self.recent.add(recent)
            followers = chain(self._live.get(change.aggregateid, ()), self._live.get(None, ()))
            told += [follower for follower in followers if follower.tell(recent)]
        return told

    @staticmethod
    async def _wake(told: Sequence[Follower]) -> None:
        """Wake followers, `TOGETHER` at a time, each group with its share of the interval."""
        for start in range(0, len(told), TOGETHER):
            together = told[start : start + TOGETHER]
            for follower in together:
                follower.wake()
            await asyncio.sleep(len(together) * SHARE)

    def _end_live(self) -> None:
        """Have all followers read the log, where each finds that it has missed something."""
        for follower in chain.from_iterable(self._live.values()):
            follower.end_live(self._position)
        self._live.clear()
        self._has_live.clear()
