"""What has to be done for operations later: timeouts that are due, and tasks."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    delete,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import SETTLED, Expiry, OperationState, State, Threshold, Timeouts, Times, expiry
from worker.model.identity import device_operation_ids
from worker.model.operation import Task
from worker.model.timing import Timing, Tripped, effective, moment, threshold
from worker.store.bulk import clock_of
from worker.store.tables import (
    activity,
    device_operations,
    operation_tasks,
    operations,
    timeout_defaults,
)

_OPEN = sorted(set(OperationState) - {OperationState.COMPLETED, OperationState.FAILED})
_UNSETTLED = sorted(set(State) - SETTLED)


class Outlook(NamedTuple):
    """What there is to do, by the database's clock in milliseconds since 1970."""

    clock: int
    first: int | None
    """When the first device operation has to be looked at; None if none can expire."""
    has_tasks: bool


class Due(NamedTuple):
    """A device operation that has to be looked at."""

    id: UUID
    operation_id: UUID
    device_id: UUID


class Armed(NamedTuple):
    """What of a device operation decides when it expires."""

    id: UUID
    operation_id: UUID
    device_id: UUID
    registered_at: int
    dispatched_at: int | None
    reported_at: int
    expires_at: int | None

    def since(self, reported_at: int) -> "Armed":
        """With a later report."""
        return self._replace(reported_at=max(self.reported_at, reported_at))

    def expiry(self, timeouts: Timeouts | None) -> Expiry | None:
        """When it expires with these timeouts."""
        if timeouts is None:
            return None
        return expiry(timeouts, Times(self.registered_at, self.dispatched_at, self.reported_at))


class PendingTask(NamedTuple):
    """A task of an operation; `version` counts how often it was begun."""

    operation_id: UUID
    task: Task
    version: int


async def outlook(connection: AsyncConnection) -> Outlook:
    """What there is to do; costs the same whatever number of device operations."""
    column = device_operations.c.expires_at
    first = select(column).where(column.is_not(None)).order_by(column).limit(1).scalar_subquery()
    query = select(_clock(connection), first, select(operation_tasks.c.task).exists())
    return Outlook(*(await connection.execute(query)).one())


async def take_due(
    connection: AsyncConnection, until: int, limit: int, left_out: Collection[UUID] = ()
) -> Sequence[Due]:
    """Lock device operations that have to be looked at, the longest overdue first, without those `left_out`.

    Those that are locked are skipped, and those of operations whose timeouts have changed, until all are armed
    with them: when they were last reported may be known then only.
    """
    column, task = device_operations.c, operation_tasks.c
    is_outdated = select(task.task).where(task.operation_id == column.operation_id, task.task == Task.ARM.value)
    query = (
        select(column.id, column.operation_id, column.device_id)
        .where(column.expires_at <= until, ~is_outdated.exists(), *_without(left_out))
        .order_by(column.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Due(*row) for row in await connection.execute(query)]


async def due_after(
    connection: AsyncConnection, until: int, after: tuple[int, UUID], limit: int
) -> Sequence[Armed]:
    """Device operations that have to be looked at, after (expires at, id)."""
    column = device_operations.c
    query = (
        select(*(column[name] for name in Armed._fields), column.dispatched)
        .where(
            column.expires_at <= until,
            or_(column.expires_at > after[0], (column.expires_at == after[0]) & (column.id > after[1])),
        )
        .order_by(column.expires_at, column.id)
        .limit(limit)
    )
    return [_armed(row) for row in await connection.execute(query)]


async def count_due(connection: AsyncConnection, until: int) -> int:
    """The number of device operations that have to be looked at; costs as many entries of an index."""
    query = select(func.count()).where(device_operations.c.expires_at <= until)
    return (await connection.execute(query)).scalar_one()


async def next_timeout(connection: AsyncConnection, operation_id: UUID) -> int | None:
    """When the next device operation of an operation expires; reads the entries of others that come before."""
    column = device_operations.c
    query = (
        select(column.expires_at)
        .where(column.operation_id == operation_id, column.expires_at.is_not(None))
        .order_by(column.expires_at)
        .limit(1)
    )
    return (await connection.execute(query)).scalar_one_or_none()


async def timed_out(connection: AsyncConnection, operation_id: UUID) -> Sequence[tuple[str | None, int]]:
    """The number of an operation's device operations in TIMEOUT, by the code of the report, most first."""
    column = device_operations.c
    query = (
        select(column.code, func.count())
        .where(column.operation_id == operation_id, column.state == State.TIMEOUT)
        .group_by(column.code)
        .order_by(func.count().desc(), column.code)
    )
    return [(code, count) for code, count in await connection.execute(query)]


async def tasks(connection: AsyncConnection, limit: int) -> Sequence[PendingTask]:
    """Some of the tasks, from a place drawn by lot on, so that several workers do different ones."""
    column, drawn = operation_tasks.c.operation_id, uuid4()
    found: list[PendingTask] = []
    for place in (column >= drawn, column < drawn):
        query = select(operation_tasks).where(place).order_by(column).limit(limit - len(found))
        found += [
            PendingTask(row.operation_id, Task(row.task), row.version) for row in await connection.execute(query)
        ]
    return found


async def finish(connection: AsyncConnection, task: PendingTask) -> None:
    """Remove a task, unless it was begun again meanwhile."""
    column = operation_tasks.c
    await connection.execute(
        delete(operation_tasks).where(
            column.operation_id == task.operation_id, column.task == task.task, column.version == task.version
        )
    )


async def lock_unsettled(
    connection: AsyncConnection,
    operation_id: UUID,
    after: UUID | None,
    limit: int,
    left_out: Collection[UUID] = (),
    among: Collection[UUID] | None = None,
) -> Sequence[Armed]:
    """Lock the device operations of an operation that are not settled, in order of id, after one of them.

    Without those `left_out`, and only those `among` some, unless that is None. The range of ids spares an index
    scan over those of other operations.
    """
    column = device_operations.c
    first, last = device_operation_ids(operation_id)
    query = (
        select(*(column[name] for name in Armed._fields), column.dispatched)
        .where(
            column.operation_id == operation_id,
            column.state.in_(_UNSETTLED),
            column.id >= first if after is None else column.id > after,
            column.id <= last,
            *_without(left_out),
            *(() if among is None else (column.id.in_(among),)),
        )
        .order_by(column.id)
        .limit(limit)
        .with_for_update()
    )
    return [_armed(row) for row in await connection.execute(query)]


async def take_unsettled(
    connection: AsyncConnection, operation_id: UUID, limit: int, left_out: Collection[UUID] = ()
) -> Sequence[Due]:
    """Lock device operations of an operation that are not settled, but those `left_out` or locked by others."""
    column = device_operations.c
    query = (
        select(column.id, column.operation_id, column.device_id)
        .where(column.operation_id == operation_id, column.state.in_(_UNSETTLED), *_without(left_out))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Due(*row) for row in await connection.execute(query)]


async def has_unsettled(connection: AsyncConnection, operation_id: UUID) -> bool:
    """Whether an operation has a device operation that is not settled."""
    column = device_operations.c
    query = select(column.id).where(column.operation_id == operation_id, column.state.in_(_UNSETTLED)).limit(1)
    return (await connection.execute(query)).first() is not None


async def last_reports(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, int]:
    """When the last report of device operations was accepted, in milliseconds since 1970.

    By workers' clocks, to the second, but not later than now by the database's.
    """
    column = activity.c
    query = (
        select(column.device_operation_id, func.max(column.recorded_at), _clock(connection))
        .where(column.device_operation_id.in_(ids), column.recorded_at.is_not(None))
        .group_by(column.device_operation_id)
    )
    return {id_: min(1_000 * at, clock) for id_, at, clock in await connection.execute(query)}


async def timing_of(connection: AsyncConnection, operation_id: UUID) -> tuple[Timing, str | None]:
    """What announcements have said of an operation's timeouts, and its type."""
    column = operations.c
    query = select(column.timeouts, column.deadline, column.schedule_end, column.operation_type)
    row = (await connection.execute(query.where(column.id == operation_id))).one_or_none()
    return (Timing(), None) if row is None else (Timing(*row[:3]), row.operation_type)


async def abort_of(connection: AsyncConnection, operation_id: UUID) -> tuple[str | None, str | None]:
    """The abort threshold of an operation and the numbers that crossed it, both as stored."""
    query = select(operations.c.abort, operations.c.tripped).where(operations.c.id == operation_id)
    row = (await connection.execute(query)).one_or_none()
    return (None, None) if row is None else (row.abort, row.tripped)


async def applied_defaults(connection: AsyncConnection) -> tuple[str, int] | None:
    """The settings for timeouts that were applied last, and for how many milliseconds; None if never any."""
    column = timeout_defaults.c
    row = (await connection.execute(select(column.settings, _clock(connection) - column.since))).one_or_none()
    return None if row is None else (row[0], row[1])


async def apply_defaults(connection: AsyncConnection, settings: str) -> None:
    """Note the settings for timeouts, and have everything that is open armed with them."""
    column = timeout_defaults.c
    values: dict[str, Any] = {"settings": settings, "since": _clock(connection)}
    changed = await connection.execute(update(timeout_defaults).where(column.settings != settings).values(values))
    if not changed.rowcount and await applied_defaults(connection) is None:
        await connection.execute(insert(timeout_defaults).values(id=1, **values))
    open_ = select(operations.c.id, literal(Task.ARM.value), literal(1)).where(operations.c.state.in_(_OPEN))
    await connection.execute(
        text("UPDATE operation_tasks SET version = version + 1 WHERE task = :task"), {"task": Task.ARM.value}
    )
    missing = (
        ~select(operation_tasks.c.task)
        .where(operation_tasks.c.operation_id == operations.c.id, operation_tasks.c.task == Task.ARM.value)
        .exists()
    )
    await connection.execute(
        insert(operation_tasks).from_select(["operation_id", "task", "version"], open_.where(missing))
    )


def _clock(connection: AsyncConnection) -> Any:
    return literal_column(clock_of(connection.dialect.name), BigInteger)


def _without(ids: Collection[UUID]) -> Sequence[ColumnElement[bool]]:
    return (device_operations.c.id.not_in(ids),) if ids else ()


def _armed(row: Any) -> Armed:
    dispatched_at = row.registered_at if row.dispatched and row.dispatched_at is None else row.dispatched_at
    return Armed(
        row.id,
        row.operation_id,
        row.device_id,
        row.registered_at,
        dispatched_at,
        row.reported_at,
        row.expires_at,
    )


class Shown(NamedTuple):
    """What people are shown of an operation's timeouts and its abort threshold."""

    timeouts: Timeouts | None
    next_at: datetime | None
    """When the next device operation expires."""
    timed_out: Mapping[str, int]
    """Device operations in TIMEOUT, by the code of the report; empty without one."""
    threshold: Threshold | None
    tripped: Tripped | None


async def shown(connection: AsyncConnection, operation_id: UUID) -> Shown:
    """What people are shown of an operation."""
    timeouts = effective(*await timing_of(connection, operation_id))
    next_at = await next_timeout(connection, operation_id)
    abort, tripped = await abort_of(connection, operation_id)
    return Shown(
        timeouts,
        None if next_at is None else moment(next_at),
        {code or "": count for code, count in await timed_out(connection, operation_id)},
        None if abort is None else threshold(abort),
        None if tripped is None else Tripped.read(tripped),
    )


async def expiry_of(connection: AsyncConnection, id_: UUID) -> Expiry | None:
    """When a device operation expires; None if it is settled or has no timeout."""
    return (await expiries_of(connection, [id_])).get(id_)


async def expiries_of(connection: AsyncConnection, ids: Collection[UUID]) -> Mapping[UUID, Expiry]:
    """When device operations expire, by id; without those that are settled or have no timeout."""
    column, of = device_operations.c, operations.c
    timing = of.timeouts, of.deadline, of.schedule_end, of.operation_type
    query = (
        select(*(column[name] for name in Armed._fields), column.dispatched, *timing)
        .join_from(device_operations, operations, of.id == column.operation_id, isouter=True)
        .where(column.id.in_(ids), column.expires_at.is_not(None))
    )
    found = {}
    for row in await connection.execute(query):
        holding = effective(Timing(row.timeouts, row.deadline, row.schedule_end), row.operation_type)
        if (expires := _armed(row).expiry(holding)) is not None:
            found[row.id] = expires
    return found
