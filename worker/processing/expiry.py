"""What happens to operations without a message: timeouts, cancellation after an abort, and changed timeouts.

Any worker does it, and several at a time do different device operations: rows that another has locked are skipped.
Every transaction is complete in itself, so that a worker may die at any moment.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import perf_counter
from uuid import UUID, uuid5

import structlog

from statemachine import AbortAction, Expiry, Kind, State, Timeouts, Times, expiry
from worker.model import timing
from worker.model.contract import Report
from worker.model.identity import NAMESPACE
from worker.model.messages import Incoming, Message, Overdue
from worker.model.operation import Task
from worker.model.outcomes import Tally
from worker.model.timing import SERVICE, Tripped, effective, threshold
from worker.processing.transaction import process_within
from worker.store import batch, due
from worker.store.database import Database
from worker.store.due import PendingTask

PORTION = 500
"""Device operations that one transaction times out, or cancels."""
ARMED = 2_000
"""Device operations of which one transaction finds when they expire."""
TASKS = 100
"""Tasks that are read at a time."""
INTERVAL = 1
"""Seconds between two looks at what is due."""
PAUSE = 0.5
"""Pause after a portion, as a fraction of its duration: reports go on meanwhile."""
AHEAD = 10_000
"""Milliseconds before a timeout is due from which it is found out what may be taken."""
CHANGED = 600_000
"""Milliseconds after a change of the settings for timeouts in which each start of a worker applies them again, as
others may go on with the former ones until they are restarted."""
ABORTED = "aborted"
"""The code of a cancellation after an abort."""

_FIRST = UUID(int=0)
_log = structlog.get_logger()

Limit = Callable[[int], Awaitable[int | None]]
"""Up to which moment timeouts may be taken, given the database's clock, both in milliseconds since 1970; None if
none may."""


async def all_of_them(clock: int) -> int:
    """The limit without a broker: nothing waits in a queue."""
    return clock


async def act_periodically(
    database: Database, stop: asyncio.Event, limit: Limit, note: Callable[[Tally], object]
) -> None:
    """Act every `INTERVAL` until `stop` is set; `note` receives the tallies."""
    is_applied = False
    while not stop.is_set():
        began = asyncio.get_running_loop().time()
        try:
            if not is_applied:
                await apply_settings(database)
                is_applied = True
            await act(database, limit, note, stop)
        except Exception as error:  # the next look tries again  # noqa: BLE001
            if not database.is_retryable(error):  # the processing of batches logs an unavailable database
                _log.error("unhandled error", exc_info=error)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(began + INTERVAL - asyncio.get_running_loop().time(), 0.05)):
                await stop.wait()


async def act(
    database: Database, limit: Limit, note: Callable[[Tally], object], stop: asyncio.Event | None = None
) -> None:
    """Do what is to be done now: tasks, then the timeouts that are due."""
    async with database.read() as connection:
        outlook = await due.outlook(connection)
    until = None
    if outlook.first is not None and outlook.first <= outlook.clock + AHEAD:
        until = await limit(outlook.clock)  # asked early, as it takes some time to find
    if outlook.has_tasks:
        async with database.read() as connection:
            tasks = await due.tasks(connection, TASKS)
        for task in tasks:
            await _do(database, task, note, stop)
    while until is not None and not _is_set(stop):
        began = perf_counter()
        tally = await time_out(database, until)
        if tally is None:
            return
        note(tally)
        await _pause(began)


async def time_out(database: Database, until: int) -> Tally | None:
    """Time out what is over by a moment, at most `PORTION`, in one transaction; None if nothing is left."""
    message = Message(b"", datetime.now(UTC))
    async with database.write(is_batch=True) as connection:
        found = await due.take_due(connection, until, PORTION)
        if not found:
            return None
        items = [Overdue(each.id, each.operation_id, each.device_id, until, message) for each in found]
        return await process_within(connection, items)


async def count_over(database: Database) -> Mapping[UUID, Counter[Kind]]:
    """What `time_out` would time out now, by operation and kind."""
    counts: dict[UUID, Counter[Kind]] = {}
    timeouts: dict[UUID, Timeouts | None] = {}
    after = (-1, _FIRST)
    async with database.read() as connection:
        clock = (await due.outlook(connection)).clock
        while found := await due.due_after(connection, clock, after, ARMED):
            for armed, operation_id in found:
                if operation_id not in timeouts:
                    timeouts[operation_id] = effective(*await due.timing_of(connection, operation_id))
                over = _expiry(timeouts[operation_id], armed)
                if over is not None and over.at <= clock:
                    counts.setdefault(operation_id, Counter())[over.kind] += 1
            last = found[-1][0]
            after = (last.expires_at or 0, last.id)
    return counts


async def apply_settings(database: Database) -> None:
    """Have everything armed with the settings for timeouts, if they have changed."""
    settings = timing.defaults()
    async with database.read() as connection:
        before = await due.applied_defaults(connection)
    if before is None and settings == timing.Defaults():
        return
    if before is None or before[0] != settings.text or before[1] < CHANGED:
        async with database.write() as connection:
            await due.apply_defaults(connection, settings.text)


async def _do(
    database: Database, task: PendingTask, note: Callable[[Tally], object], stop: asyncio.Event | None
) -> None:
    is_done = await (_arm(database, task, stop) if task.task is Task.ARM else _cancel(database, task, note, stop))
    if is_done:
        async with database.write() as connection:
            await due.finish(connection, task)


async def _arm(database: Database, task: PendingTask, stop: asyncio.Event | None) -> bool:
    """Find anew when the device operations of an operation expire.

    A transaction that moves one of them meanwhile either has the timeouts of now, as it reads them after it has
    locked the row, or is waited for here. One that registers compares its timeouts under the operation's lock.
    """
    after = _FIRST
    while not _is_set(stop):
        began = perf_counter()
        async with database.write() as connection:
            found = await due.lock_unsettled(connection, task.operation_id, after, ARMED)
            if not found:
                return True
            timeouts = effective(*await due.timing_of(connection, task.operation_id))
            has_step = timeouts is not None and timeouts.step is not None
            reported = await due.last_reports(connection, [each.id for each in found]) if has_step else {}
            changed = []
            for each in found:
                last = each._replace(reported_at=max(each.reported_at, reported.get(each.id, 0)))
                over = _expiry(timeouts, last)
                expires_at = None if over is None else over.at
                if expires_at != each.expires_at:
                    changed.append((each.id, expires_at))
            await batch.arm(connection, changed)
            after = found[-1].id
        await _pause(began)
    return False


async def _cancel(
    database: Database, task: PendingTask, note: Callable[[Tally], object], stop: asyncio.Event | None
) -> bool:
    """Cancel what is not settled of an operation whose abort threshold was crossed."""
    while not _is_set(stop):
        began = perf_counter()
        now = datetime.now(UTC)
        async with database.write(is_batch=True) as connection:
            abort, tripped = await due.abort_of(connection, task.operation_id)
            if abort is None or tripped is None or threshold(abort).action is not AbortAction.CANCEL:
                return True  # another threshold was announced
            found = await due.take_unsettled(connection, task.operation_id, PORTION)
            if not found:
                return not await due.has_unsettled(connection, task.operation_id)
            crossed = Tripped.read(tripped)
            report_id = str(uuid5(NAMESPACE, f"abort {task.operation_id} {crossed.at.isoformat()}"))
            message = Message(b"", now, report_id)
            items = [
                Incoming(
                    Report.model_construct(
                        operation_id=each.operation_id,
                        device_id=each.device_id,
                        state=State.CANCELLED,
                        service_id=SERVICE,
                        code=ABORTED,
                        reason=crossed.in_words(threshold(abort)),
                    ),
                    (each.id, report_id),
                    now,
                    message,
                )
                for each in found
            ]
            tally = await process_within(connection, items)
        note(tally)
        await _pause(began)
    return False


def _expiry(timeouts: Timeouts | None, armed: due.Armed) -> Expiry | None:
    if timeouts is None:
        return None
    return expiry(timeouts, Times(armed.registered_at, armed.dispatched_at, armed.reported_at))


def _is_set(stop: asyncio.Event | None) -> bool:
    return stop is not None and stop.is_set()


async def _pause(began: float) -> None:
    await asyncio.sleep(PAUSE * (perf_counter() - began))
