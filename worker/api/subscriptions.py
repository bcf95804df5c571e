"""Subscriptions to changes of operations: LISTEN/NOTIFY on PostgreSQL, polling on SQLite and behind some poolers.

One task reads all changed operations in one query, whatever the number of subscribers.
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
from worker.store.notify import NotListening, listen

POLL_INTERVAL = 0.5
"""Seconds between two queries where nothing notifies: on SQLite, and behind a pooler of transactions."""
MIN_INTERVAL = 0.1
"""Minimum seconds between two queries: batches commit every few milliseconds."""
MAX_SUBSCRIBERS = 1_000
"""Maximum number of subscribers: each holds a connection of the server."""
LISTEN_RETRY = 300
"""Seconds of polling behind a pooler before LISTEN is tried again: the pooler may have another mode by then."""
RETRY = 1.0
"""Seconds between retries while the database is unavailable."""

_log = structlog.get_logger()


class _Subscriber:
    """Holds the latest undelivered version of an operation; a slow subscriber skips the versions between."""

    def __init__(self) -> None:
        self._latest: asyncio.Queue[documents.Operation | None] = asyncio.Queue(1)

    def put(self, operation: documents.Operation | None) -> None:
        """Replace the undelivered version; None ends the subscription."""
        if self._latest.full():
            self._latest.get_nowait()
        self._latest.put_nowait(operation)

    async def get(self) -> documents.Operation | None:
        """Wait for the next version, None at the end."""
        return await self._latest.get()


class Subscriptions:
    """Delivers changed operations to subscribers, while `run` is running."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._subscribers: defaultdict[UUID, set[_Subscriber]] = defaultdict(set)
        self._changed: set[UUID] = set()
        self._woken = asyncio.Event()
        self._stopped = False

    @property
    def count(self) -> int:
        """The number of subscribers."""
        return sum(map(len, self._subscribers.values()))

    @property
    def is_full(self) -> bool:
        """Whether `MAX_SUBSCRIBERS` is reached."""
        return self.count >= MAX_SUBSCRIBERS

    async def subscribe(self, operation_id: UUID) -> AsyncIterator[documents.Operation]:
        """Yield an operation now and after each change; several changes at once are yielded once."""
        subscriber = _Subscriber()
        self._subscribers[operation_id].add(subscriber)
        last = None
        try:
            if self._stopped:
                return
            self._mark_changed(operation_id)
            while operation := await subscriber.get():
                if operation != last:
                    yield operation
                last = operation
        finally:
            self._subscribers[operation_id].discard(subscriber)
            if not self._subscribers[operation_id]:
                del self._subscribers[operation_id]

    def stop(self) -> None:
        """End all subscriptions."""
        self._stopped = True
        for subscriber in chain.from_iterable(self._subscribers.values()):
            subscriber.put(None)

    async def run(self) -> None:
        """Deliver changes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll() if self._database.is_sqlite else self._listen())
            while True:
                await self._woken.wait()
                self._woken.clear()
                changed, self._changed = self._changed & self._subscribers.keys(), set()
                if changed:
                    await self._deliver(changed)
                await asyncio.sleep(MIN_INTERVAL)

    def _mark_changed(self, *operation_ids: UUID) -> None:
        self._changed.update(operation_ids)
        self._woken.set()

    async def _deliver(self, changed: set[UUID]) -> None:
        try:
            async with self._database.read() as connection:
                found = await queries.get_operations(connection, changed)
        except Exception as error:  # retried, or subscribers would wait for ever  # noqa: BLE001
            if not is_database_error(error):
                _log.error("unhandled error", exc_info=error)
            await asyncio.sleep(RETRY)
            self._mark_changed(*changed)
            return
        if self._stopped:
            return
        for operation, _ in found:
            for subscriber in self._subscribers.get(operation.id, ()):
                subscriber.put(operation)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            self._mark_changed(*self._subscribers)

    async def _listen(self) -> None:
        is_lost = is_polling = False
        while True:

            def ready() -> None:
                nonlocal is_lost, is_polling
                if is_lost or is_polling:
                    _log.info("LISTEN connection restored")
                is_lost = is_polling = False
                self._mark_changed(*self._subscribers)  # changes before LISTEN were not notified

            try:
                await listen(self._database, self._mark_changed, ready)
            except NotListening as error:
                if not is_polling:
                    _log.warning("LISTEN is not supported, polling", error=str(error), interval=POLL_INTERVAL)
                is_polling, is_lost = True, False
                with suppress(TimeoutError):
                    async with asyncio.timeout(LISTEN_RETRY):
                        await self._poll()
                continue
            except Exception as error:  # the same  # noqa: BLE001
                if not is_database_error(error):
                    _log.error("unhandled error", exc_info=error)
                if not is_lost:
                    _log.warning("LISTEN connection lost, polling until it returns", error=one_line_error(error))
                is_lost = True
            self._mark_changed(*self._subscribers)  # polls in place of notifications
            await asyncio.sleep(RETRY)


async def cancel_and_wait(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
