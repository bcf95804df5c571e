"""What happens to operations without a message: timeouts, cancellation after an abort, and changed timeouts.

Any worker does it, and several at a time do different device operations: rows that another has locked are skipped.
Every transaction is complete in itself, so that a worker may die at any moment.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import perf_counter
from uuid import UUID, uuid5

import structlog

from statemachine import AbortAction, Kind, State, Timeouts
from worker.model import timing
from worker.model.contract import Report
from worker.model.identity import NAMESPACE
from worker.model.messages import Incoming, Message, Overdue
from worker.model.operation import Task
from worker.model.outcomes import Tally
from worker.model.timing import SERVICE, Tripped, effective, threshold
from worker.processing.refusals import Portion, Refusals
from worker.processing.transaction import process_within
from worker.store import batch, due
from worker.store.database import Database
from worker.store.due import Due, PendingTask

PORTION = 200
"""Device operations that one transaction times out, or cancels."""
ARMED = 2_000
"""Device operations of which one transaction finds when they expire."""
TASKS = 100
"""Tasks that are read at a time."""
INTERVAL = 1
"""Seconds between two looks at what is due."""
LOCKED = 0.05
"""Seconds after which rows that another transaction has locked are tried again."""
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
_LEAST = -(2**63)
"""Before every moment: a deadline may lie before 1970."""
_log = structlog.get_logger()

Limit = Callable[[int], Awaitable[int | None]]
"""Up to which moment timeouts may be taken, given the database's clock, both in milliseconds since 1970; None if
none may."""


async def all_of_them(clock: int) -> int:
    """The limit without a broker: nothing waits in a queue."""
    return clock


class Expirer:
    """Acts upon operations periodically; `note` receives the tallies."""

    def __init__(self, database: Database, limit: Limit, note: Callable[[Tally], object]) -> None:
        self._database = database
        self._limit = limit
        self._note = note
        self._stop = asyncio.Event()
        self._is_applied = False
        """Whether the settings for timeouts are applied."""
        self._has_tasks = True
        """Whether there may be tasks: a look at what is due tells."""
        self._timing_out = Refusals(database, "the database refuses a timeout", PORTION)
        self._cancelling = Refusals(database, "the database refuses a cancellation", PORTION)
        self._arming = Refusals(database, "the database refuses changed timeouts", ARMED)
        self.lag = 0.0
        """Seconds for which the first device operation that is over has waited for its timeout."""

    async def run(self, stop: asyncio.Event) -> None:
        """Act every `INTERVAL` until `stop` is set; long tasks do not delay timeouts."""
        self._stop = stop
        await asyncio.gather(self._repeat(self._apply_settings_and_do_tasks), self._repeat(self.take_timeouts))

    async def act(self) -> bool:
        """Do everything once: tasks, then the timeouts that are due; returns whether there was anything."""
        has_done_tasks = await self.do_tasks()
        return await self.take_timeouts() or has_done_tasks

    @property
    def refused(self) -> int:
        """How many device operations the database refuses to change."""
        return sum(each.count for each in (self._timing_out, self._cancelling, self._arming))

    async def do_tasks(self) -> bool:
        """Do some of the tasks; returns whether there may be more to do at once."""
        async with self._database.read() as connection:
            tasks = await due.tasks(connection, TASKS)
        self._cancelling.forget()
        has_more = False
        for task in tasks:
            if self._stop.is_set():
                break
            if await (self._arm(task.operation_id) if task.task is Task.ARM else self._cancel(task)):
                async with self._database.write() as connection:
                    await due.finish(connection, task)
                has_more = True
            else:
                await asyncio.sleep(LOCKED)
                has_more = has_more or not self._cancelling.count
        return has_more

    async def take_timeouts(self) -> bool:
        """Time out what is over and may be; returns whether anything was."""
        async with self._database.read() as connection:
            clock, first, has_tasks = await due.outlook(connection)
        self._has_tasks = self._has_tasks or has_tasks
        self.lag = 0 if first is None else max(clock - first, 0) / 1_000
        if first is None or first > clock + AHEAD:
            return False
        until = await self._limit(clock)  # asked early, as it takes some time to find
        self._timing_out.forget()
        timed_out = 0
        while until is not None and first <= until and not self._stop.is_set():
            began = perf_counter()
            async with self._timing_out.isolating() as portion:
                tally = await time_out(self._database, until, portion)
                if tally is None:
                    break
                self._note(tally)
                timed_out += tally.timeouts.total()
            await _pause(began)
        if timed_out:
            _log.info("timed out", device_operations=timed_out)
        return timed_out > 0

    async def _repeat(self, work: Callable[[], Awaitable[object]]) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            began = loop.time()
            try:
                await work()
            except Exception as error:  # the next time tries again  # noqa: BLE001
                # The processing of batches logs an unavailable database.
                if not self._database.is_retryable(error):
                    _log.error("unhandled error", exc_info=error)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(began + INTERVAL - loop.time(), LOCKED)):
                    await self._stop.wait()

    async def _apply_settings_and_do_tasks(self) -> None:
        if not self._is_applied:
            await apply_settings(self._database)
            self._is_applied = True
        for operation_id, refused in self._arming.passed().items():
            if await self._arm(operation_id, refused):
                self._arming.forget(refused)
        while self._has_tasks and not self._stop.is_set():
            self._has_tasks = await self.do_tasks()

    async def _arm(self, operation_id: UUID, among: Collection[UUID] | None = None) -> bool:
        """Find anew when the device operations of an operation expire; returns whether that is done.

        Of all, or of those `among` some. Those that the database refuses are tried again later, by this process:
        a task that is left would hold up the timeouts of all others.

        A transaction that moves one of them meanwhile either has the timeouts of now, as it reads them after it
        has locked the row, or is waited for here. One that registers compares its timeouts under the operation's
        lock.
        """
        after: UUID | None = None
        while not self._stop.is_set():
            began = perf_counter()
            async with self._arming.isolating() as portion, self._database.write() as connection:
                found = await due.lock_unsettled(
                    connection, operation_id, after, portion.size, portion.left_out, among
                )
                if not found:
                    return True
                portion.taken = found
                timeouts = effective(*await due.timing_of(connection, operation_id))
                has_step = timeouts is not None and timeouts.step is not None
                reported = await due.last_reports(connection, [each.id for each in found]) if has_step else {}
                changed = []
                for before in found:
                    armed = before.since(reported.get(before.id, 0))
                    over = armed.expiry(timeouts)
                    armed = armed._replace(expires_at=None if over is None else over.at)
                    if armed != before:
                        changed.append((armed.id, armed.expires_at, armed.reported_at))
                await batch.arm(connection, changed)
            if not portion.is_refused:
                after = found[-1].id
            await _pause(began)
        return False

    async def _cancel(self, task: PendingTask) -> bool:
        """Cancel what is not settled of an operation whose threshold was crossed; returns whether that is done."""
        while not self._stop.is_set():
            began = perf_counter()
            async with self._cancelling.isolating() as portion, self._database.write(is_batch=True) as connection:
                abort, tripped = await due.abort_of(connection, task.operation_id)
                if abort is None or tripped is None or threshold(abort).action is not AbortAction.CANCEL:
                    return True  # another threshold was announced
                found = await due.take_unsettled(connection, task.operation_id, portion.size, portion.left_out)
                if not found:
                    return not await due.has_unsettled(connection, task.operation_id)
                portion.taken = found
                reason = Tripped.read(tripped).in_words(threshold(abort))
                report_id = str(uuid5(NAMESPACE, f"abort {task.operation_id} {tripped}"))
                tally = await process_within(connection, _cancellations(found, report_id, reason))
            if not portion.is_refused:
                self._note(tally)
            await _pause(began)
        return False


async def time_out(database: Database, until: int, portion: Portion | None = None) -> Tally | None:
    """Time out a portion of what is over by a moment, in one transaction; None if nothing is left."""
    portion = portion or Portion(PORTION)
    message = Message(b"", datetime.now(UTC))
    async with database.write(is_batch=True) as connection:
        portion.taken = found = await due.take_due(connection, until, portion.size, portion.left_out)
        if not found:
            return None
        items = [Overdue(each.id, each.operation_id, each.device_id, until, message) for each in found]
        return await process_within(connection, items)


async def count_over(database: Database) -> Mapping[UUID, Counter[Kind]]:
    """What `time_out` would time out now, by operation and kind."""
    counts: dict[UUID, Counter[Kind]] = {}
    timeouts: dict[UUID, Timeouts | None] = {}
    after = (_LEAST, _FIRST)
    async with database.read() as connection:
        clock = (await due.outlook(connection)).clock
        while found := await due.due_after(connection, clock, after, ARMED):
            for armed in found:
                id_ = armed.operation_id
                if id_ not in timeouts:
                    timeouts[id_] = effective(*await due.timing_of(connection, id_))
                over = armed.expiry(timeouts[id_])
                if over is not None and over.at <= clock:
                    counts.setdefault(id_, Counter())[over.kind] += 1
            last = found[-1]
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


def _cancellations(found: Sequence[Due], report_id: str, reason: str) -> list[Incoming]:
    now = datetime.now(UTC)
    message = Message(b"", now, report_id)
    reports = (
        Report.model_construct(
            operation_id=each.operation_id,
            device_id=each.device_id,
            state=State.CANCELLED,
            service_id=SERVICE,
            code=ABORTED,
            reason=reason,
        )
        for each in found
    )
    return [
        Incoming(report, (each.id, report_id), now, message) for each, report in zip(found, reports, strict=True)
    ]


async def _pause(began: float) -> None:
    await asyncio.sleep(PAUSE * (perf_counter() - began))
