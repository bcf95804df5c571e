"""Who follows an operation is told when it changes: at once on PostgreSQL, by a short poll on SQLite.

However many follow, one task looks, and at all followed operations in one query.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import chain
from uuid import UUID

import structlog

from worker.store import documents, queries
from worker.store.database import Database
from worker.store.errors import is_database_error, one_line_error
from worker.store.notify import listen

POLL = 0.5
"""Seconds between two looks on SQLite."""
BREATH = 0.1
"""Seconds between two looks on PostgreSQL, at least: a batch commits every few milliseconds."""
MAX_FOLLOWERS = 1_000
"""Who may follow at a time: each holds a connection."""
RETRY = 1.0
"""Seconds until the next try when the database is away."""

_log = structlog.get_logger()


class _Follower:
    """Who follows an operation, and what they have yet to be told: however slowly they listen, the last only."""

    def __init__(self) -> None:
        self._news: asyncio.Queue[documents.Operation | None] = asyncio.Queue(1)

    def tell(self, news: documents.Operation | None) -> None:
        """Tell how the operation is now, or None that there will be nothing more."""
        if self._news.full():
            self._news.get_nowait()
        self._news.put_nowait(news)

    async def hear(self) -> documents.Operation | None:
        """Wait for what there is to tell."""
        return await self._news.get()


class Changes:
    """What happens to operations, for those who follow them. `run` has to be running."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers: defaultdict[UUID, set[_Follower]] = defaultdict(set)
        self._changed: set[UUID] = set()
        self._woken = asyncio.Event()
        self._stopped = False

    @property
    def followers(self) -> int:
        """How many follow."""
        return sum(map(len, self._followers.values()))

    @property
    def is_full(self) -> bool:
        """Whether nobody more may follow."""
        return self.followers >= MAX_FOLLOWERS

    async def follow(self, operation_id: UUID) -> AsyncIterator[documents.Operation]:
        """An operation as it is, and again whenever it has changed; of several changes at once, the last."""
        follower = _Follower()
        self._followers[operation_id].add(follower)
        last = None
        try:
            if self._stopped:
                return
            self._look_at(operation_id)
            while operation := await follower.hear():
                if operation != last:
                    yield operation
                last = operation
        finally:
            self._followers[operation_id].discard(follower)
            if not self._followers[operation_id]:
                del self._followers[operation_id]

    def stop(self) -> None:
        """Let those who follow go."""
        self._stopped = True
        for follower in chain.from_iterable(self._followers.values()):
            follower.tell(None)

    async def run(self) -> None:
        """Look, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll() if self._database.is_sqlite else self._listen())
            while True:
                await self._woken.wait()
                self._woken.clear()
                changed, self._changed = self._changed & self._followers.keys(), set()
                if changed:
                    await self._tell(changed)
                await asyncio.sleep(BREATH)

    def _look_at(self, *operation_ids: UUID) -> None:
        self._changed.update(operation_ids)
        self._woken.set()

    async def _tell(self, changed: set[UUID]) -> None:
        try:
            async with self._database.read() as connection:
                found = await queries.get_operations(connection, changed)
        except Exception as error:  # whatever it is, those who follow are not to wait for ever  # noqa: BLE001
            if not is_database_error(error):
                _log.error("a defect", exc_info=error)
            await asyncio.sleep(RETRY)
            self._look_at(*changed)
            return
        if self._stopped:
            return
        for operation, _ in found:
            for follower in self._followers.get(operation.id, ()):
                follower.tell(operation)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            self._look_at(*self._followers)

    async def _listen(self) -> None:
        is_away = False
        while True:

            def ready() -> None:
                nonlocal is_away
                if is_away:
                    _log.info("listening: the database tells of changes again")
                is_away = False
                self._look_at(*self._followers)  # what changed meanwhile was told to nobody

            try:
                await listen(self._database, self._look_at, ready)
            except Exception as error:  # the same  # noqa: BLE001
                if not is_database_error(error):
                    _log.error("a defect", exc_info=error)
                if not is_away:
                    _log.warning("deaf: the database cannot tell of changes", error=one_line_error(error))
                is_away = True
            await asyncio.sleep(RETRY)


async def stopped(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
