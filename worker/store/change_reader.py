"""Reads the log of changes on, from a cursor that is kept in the database: one process at a time, any of them."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid4

import structlog
from sqlalchemy import BigInteger, literal_column, select

from worker.store import change_log, outbox
from worker.store.bulk import clock_of
from worker.store.change_log import LoggedChange, Read
from worker.store.change_signal import ChangeSignal
from worker.store.database import Database
from worker.store.tables import change_cursors
from worker.store.tables import outbox as pending

HELD = 5_000
"""Milliseconds for which a cursor is held: another process goes on so long after the death of its holder."""
INTERVAL = 1
"""Seconds between two looks of those who do not hold the cursor."""
BEHIND = 0.01
"""Seconds until the next look while another process, such as `serve`, numbers what this one would."""
PORTION = change_log.AT_WORK
"""Changes that are read at a time."""
REMOVED = 5_000
"""Changes that are removed in one transaction."""

Result = TypeVar("Result")

_log = structlog.get_logger()


class _Look(NamedTuple):
    """What a look has found."""

    position: int
    is_held: bool
    """Whether another process holds the cursor."""
    is_expiring: bool
    """Whether the cursor is not held for much longer."""
    has_more: bool
    """Whether there is something to read."""


class ChangeReader:
    """Reads changes after a cursor, which `name` identifies.

    `keep` is the milliseconds for which changes that all have read are kept, `limit` the number of changes that
    are kept at most; of more that are not read, the oldest ones of device operations are dropped.
    """

    def __init__(self, database: Database, name: str, keep: int, limit: int) -> None:
        self._database = database
        self._name = name
        self._keep = keep
        self._limit = limit
        self._id = uuid4()
        self._signal = ChangeSignal(database)
        self._is_woken = False
        """Whether a commit has told changes since the last look."""
        self._is_holder = False
        self._is_behind = False
        self._portion: Mapping[int, UUID] = {}
        """The ids of what was read last, by position."""
        self._has_cursor = False
        self._listening: asyncio.Task[None] | None = None

    async def next(self, read: int) -> tuple[int, Sequence[LoggedChange]] | None:
        """Advance the cursor to what was read; returns its position, and the next changes.

        None if another process holds it. Raises the database's errors.
        """
        return await self._in_time(self._next(read))

    async def release(self, read: int) -> None:
        """Advance the cursor to what was read, and let another process hold it."""
        if self._is_holder:
            await self._in_time(self._release(read))
        self._note_holding(is_holder=False)

    async def tidy(self) -> None:
        """Remove what all have read and is too old, and drop what is too much. Raises the database's errors."""
        while await self._in_time(self._number()):
            pass
        total = 0
        while dropped := await self._in_time(self._drop()):
            total += dropped
        if total:
            _log.warning(
                "changes of device operations dropped: too many are not published",
                dropped=total,
                limit=self._limit,
            )
        while await self._in_time(self._remove()) == REMOVED:
            pass

    async def register(self) -> None:
        """Have what is not read kept, whether or not this process can read on. Raises the database's errors."""
        await self._in_time(self._register())

    async def _in_time(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`; raises TimeoutError if the database does not answer."""
        return await self._database.run_with_timeout(work, self._database.answer_timeout)

    async def _next(self, read: int) -> tuple[int, Sequence[LoggedChange]] | None:
        if not (self._is_woken and self._is_holder):
            look = await self._look(read)
            if look.is_held:
                self._note_holding(is_holder=False)
                return None
            if not look.has_more and not look.is_expiring:
                return look.position, ()
        self._is_woken = False
        async with self._database.write(is_counted=False) as connection:
            done = self._done_with(read)
            portion = await change_log.read_on(connection, self._name, self._id, HELD, done, PORTION)
        self._note_holding(is_holder=portion is not None)
        if portion is None:
            return None
        self._portion = {change.position: change.id for change in portion.changes} or self._portion
        self._is_behind = portion.is_behind
        self._is_woken = bool(portion.changes)  # the cursor has to be advanced in any case
        return portion.position, portion.changes

    async def _release(self, read: int) -> None:
        async with self._database.write(is_counted=False) as connection:
            await change_log.release(connection, self._name, self._id, self._done_with(read))

    def _done_with(self, read: int) -> Read:
        """The change at a position of the last portion."""
        return Read(read, self._portion[read]) if read in self._portion else Read()

    async def _register(self) -> None:
        async with self._database.write(is_counted=False) as connection:
            await change_log.register(connection, self._name)

    async def _number(self) -> bool | None:
        async with self._database.write(is_counted=False) as connection:
            return await outbox.number(connection)

    async def _drop(self) -> int:
        async with self._database.write(is_counted=False) as connection:
            return await change_log.drop(connection, self._name, self._limit, REMOVED)

    async def _remove(self) -> int:
        async with self._database.write(is_counted=False) as connection:
            return await change_log.remove_read(connection, self._keep, self._limit, REMOVED)

    async def wait(self) -> None:
        """Wait until there may be something to read."""
        if self._is_behind:
            await asyncio.sleep(BEHIND)
        elif self._is_holder:
            self._is_woken = await self._signal.wait()
        else:
            await asyncio.sleep(INTERVAL)
        self._is_behind = False

    def close(self) -> None:
        """Hold the cursor no longer than it is held now."""
        self._note_holding(is_holder=False)

    def _note_holding(self, *, is_holder: bool) -> None:
        """Listen to commits while this process holds the cursor: others need not know of each."""
        self._is_holder = is_holder
        if is_holder and self._listening is None:
            self._listening = asyncio.create_task(self._signal.run())
        elif not is_holder and self._listening is not None:
            self._listening.cancel()
            self._listening = None

    async def _look(self, read: int) -> _Look:
        """What there is to do; reads three rows."""
        if not self._has_cursor:
            async with self._database.write(is_counted=False) as connection:
                await change_log.begin(connection, self._name)
            self._has_cursor = True
        column = change_cursors.c
        async with self._database.read() as connection:
            end = select(column.position).where(column.name == outbox.LOG).scalar_subquery()
            query = select(
                column.position,
                column.holder,
                column.held_until - literal_column(clock_of(connection.dialect.name), BigInteger),
                end,
                select(pending.c.position).exists(),
            ).where(column.name == self._name)
            row = (await connection.execute(query)).one_or_none()
        if row is None:  # somebody has deleted the cursor
            self._has_cursor = False
            return _Look(0, is_held=True, is_expiring=False, has_more=False)
        position, holder, held_for, last, is_pending = row
        is_own = holder == self._id
        return _Look(
            position,
            is_held=not is_own and held_for > 0,
            is_expiring=not is_own or held_for < HELD / 2,
            has_more=is_pending or last > max(position, read) or read > position,
        )
