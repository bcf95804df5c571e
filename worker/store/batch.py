"""Reads and writes of a batch, in the order in which a transaction does them.

Lock order: operations to create, keys of announcements and cancellations, existing device operations, inserted
device operations, dead letters, operations to count for; each sorted by id. So no two transactions can deadlock.
Device operations that another transaction has inserted meanwhile are out of this order, and are locked with SKIP
LOCKED.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters, State
from worker.model import minutes
from worker.model.causes import Group, GroupKey
from worker.model.contract import Announcement
from worker.model.identity import device_operation_ids
from worker.model.messages import Key
from worker.model.operation import StoredOperation
from worker.model.timing import Timing
from worker.store import reason_groups
from worker.store.bulk import run_together, with_json
from worker.store.statements import device_operations as device_sql
from worker.store.statements import operations as operation_sql
from worker.store.statements import reason_groups as group_sql

_WRITE_NOTHING = text("SELECT pg_logical_emit_message(true, 'deviceops', '')")

StoredState = tuple[UUID, int, bool, str, int, int | None, int, int | None, str | None]
"""A stored device operation: id, code of the state, dispatched flag, `reached` (see `model.state_times`), when it
was registered, dispatched and last reported, and expires, by the database's clock, and its cause."""


Moved = tuple[UUID, State, bool, str | None, str | None, str | None, str | None, str, int | None, bool | None]
"""New values of a device operation: id, state, dispatched, reason or None to keep it and the next three: code,
service, cause; reached, expires at, True if nothing was reported or None."""

STATES = {state.value: state for state in State}
"""States by code; `State(code)` takes ten times as long."""


async def create_operations(connection: AsyncConnection, missing: Mapping[UUID, datetime]) -> set[UUID]:
    """Create missing operations (id: created at); returns the ids of the new ones.

    Waits for transactions that are creating the same operations. Unused ones must be removed with `withdraw`.
    """
    return {id_ for (id_,) in await operation_sql.CREATE_OPERATIONS.run(connection, list(missing.items()))}


async def take_announcements(connection: AsyncConnection, keys: Collection[Key]) -> set[Key]:
    """Insert keys of announcements and cancellations (operation, message id); returns the new ones."""
    return {(row[0], row[1]) for row in await operation_sql.TAKE_ANNOUNCEMENTS.run(connection, list(keys))}


class KnownOperations(NamedTuple):
    """What is stored of a batch's operations."""

    types: dict[UUID, str | None]
    timing: dict[UUID, Timing]
    """What announcements have said of timeouts."""
    clock: int
    """The database's, in milliseconds since 1970; 0 if no operation was found."""


async def read_operations(connection: AsyncConnection, ids: Collection[UUID]) -> KnownOperations:
    """Read what is stored of operations; those that do not exist are omitted."""
    found = KnownOperations({}, {}, 0)
    for id_, type_, timeouts, deadline, schedule_end, clock in await operation_sql.OPERATIONS.run(
        connection, [(id_,) for id_ in ids]
    ):
        found.types[id_], found.timing[id_] = type_, Timing(timeouts, deadline, schedule_end)
        found = found._replace(clock=clock)
    return found


async def claim(
    connection: AsyncConnection,
    rows: Collection[tuple[UUID, UUID, UUID, datetime, str, str | None, int | None]],
    now: datetime,
    clock: int,
) -> set[UUID]:
    """Insert device operations (id, operation, device, created at, reached, service, expires at); gives new ids.

    `clock` is when they are registered, by the database's clock.

    The unique key then blocks other transactions from registering or parking for the same pair until the commit;
    waits for transactions that have inserted the same pair. Unused rows must be removed with `withdraw`.
    """
    return {id_ for (id_,) in await device_sql.CLAIM.run(connection, list(rows), updated_at=now, clock=clock)}


class Registration(NamedTuple):
    """What the rows of device operations that are registered together have in common."""

    operation_id: UUID
    at: datetime
    reached: str
    clock: int
    """The database's, in milliseconds since 1970."""
    expires_at: int | None


async def register(connection: AsyncConnection, common: Registration, rows: Sequence[tuple[UUID, UUID]]) -> None:
    """Insert device operations (id, device) of an operation that this transaction has created.

    Waits for transactions that have inserted the same ones, which cannot commit them.
    """
    await device_sql.REGISTER.run(connection, rows, **common._asdict())


async def record_registrations(
    connection: AsyncConnection, operation_id: UUID, report_id: str, at: datetime, now: datetime
) -> None:
    """Begin the histories of all device operations of an operation, which have none, by one report each."""
    row = operation_id, *device_operation_ids(operation_id), report_id, at, int(now.timestamp())
    await device_sql.RECORD_REGISTRATIONS.run(connection, [row])


async def lock(connection: AsyncConnection, ids: Collection[UUID]) -> Iterable[StoredState]:
    """Lock the registered ones of these device operations until the commit; returns their state."""
    return await device_sql.LOCK.run(connection, [(id_,) for id_ in ids])


async def lock_skip_locked(connection: AsyncConnection, ids: Collection[UUID]) -> Iterable[StoredState]:
    """Like `lock`, but skips device operations that other transactions have locked."""
    return await device_sql.LOCK_SKIP_LOCKED.run(connection, [(id_,) for id_ in ids])


async def announced_before(connection: AsyncConnection, keys: Collection[Key]) -> set[Key]:
    """The announcement keys (operation, message id) that are stored."""
    return {(row[0], row[1]) for row in await operation_sql.ANNOUNCED.run(connection, list(keys))}


async def peek(connection: AsyncConnection, ids: Collection[UUID]) -> Iterable[StoredState]:
    """Like `lock`, without locks."""
    return await device_sql.PEEK.run(connection, [(id_,) for id_ in ids])


class KnownReports(NamedTuple):
    """What is stored of a batch's reports and operations."""

    accepted: dict[Key, State]
    """Accepted reports and their states."""
    kept: dict[Key, int]
    """Reports that are stored as dead letters, and the ids of these."""
    operations: KnownOperations
    """Those that exist."""
    discarded: set[Key]
    """Reports whose dead letters are discarded."""


async def read_known(
    connection: AsyncConnection, reports: Collection[Key], operations: Collection[UUID]
) -> KnownReports:
    """Read what is stored of reports and operations; after `claim`, which waits for other transactions."""
    known = KnownOperations({}, {}, 0)
    found = KnownReports({}, {}, known, set())
    asked = [*reports, *((id_, None) for id_ in operations)]
    clock = 0
    for id_, report_id, dead_letter_id, type_, state, *timing, read_at in await device_sql.KNOWN.run(
        connection, asked
    ):
        if report_id is None:
            known.types[id_], known.timing[id_], clock = type_, Timing(*timing), read_at
        elif dead_letter_id is None:
            found.accepted[id_, report_id] = State(state)
        else:
            found.kept[id_, report_id] = dead_letter_id
            if state is not None:
                found.discarded.add((id_, report_id))
    return found._replace(operations=known._replace(clock=clock))


async def withdraw(
    connection: AsyncConnection,
    device_operations: Collection[UUID],
    created_operations: Collection[UUID],
    announcements: Collection[Key],
) -> None:
    """Delete claimed device operations, created operations and announcement keys that are not used."""
    await run_together(
        connection,
        (device_sql.WITHDRAW_DEVICE_OPERATIONS, [(id_,) for id_ in device_operations]),
        (operation_sql.WITHDRAW_OPERATIONS, [(id_,) for id_ in created_operations]),
        (operation_sql.WITHDRAW_ANNOUNCEMENTS, list(announcements)),
    )


async def keep_minutes(connection: AsyncConnection, over: Sequence[tuple[UUID, int, int]]) -> None:
    """Add minutes that are over to their hours: operation, minute since 1970, number that settled in it."""
    await operation_sql.KEEP_MINUTES.run(
        connection, [(id_, *minutes.entry(minute, settled)) for id_, minute, settled in over]
    )


async def write(
    connection: AsyncConnection,
    moved: Sequence[Moved],
    history: Sequence[tuple[UUID, str, State, str, datetime, str, str, int, str | None, str | None]],
    deltas: Mapping[UUID, Counters],
    at: datetime,
    clock: int,
    *,
    is_told: bool,
) -> dict[UUID, StoredOperation]:
    """Write device operations and their history, and add to counters; returns the operations, locked.

    `moved` has new values of device operations, `history` new rows of
    `device_operation_activity` (device operation, report id, state, verdict, created at, service, reason, recorded
    at, note, code); `at` is the time of the update, `clock` that of the reports by the database's clock in
    milliseconds since 1970, 0 if that is not a moment at which anything settled. `is_told` is whether the
    operations' changes are told, and so counted.
    """
    # NULL where nothing moves at this moment.
    settled = (delta.settled_device_count if clock and any(delta) else None for delta in deltas.values())
    added = [(id_, number, *delta) for number, (id_, delta) in zip(settled, deltas.items(), strict=True)]
    runs = (device_sql.MOVE, moved), (device_sql.RECORD, history), (operation_sql.COUNT, added)
    rows = await run_together(connection, *runs, updated_at=at, clock=clock, told=int(is_told))
    await keep_minutes(connection, [row[:3] for row in rows if row[1]])
    return {
        id_: StoredOperation(
            operation_type,
            state,
            expected,
            Counters(*counters),
            Timing(timeouts, deadline, schedule_end),
            abort,
            tripped,
            sequence=sequence,
        )
        for (
            id_,
            _minute,
            _settled,
            operation_type,
            state,
            expected,
            timeouts,
            deadline,
            schedule_end,
            abort,
            tripped,
            sequence,
            *counters,
        ) in rows
    }


async def arm(connection: AsyncConnection, expiries: Collection[tuple[UUID, int | None, int]]) -> None:
    """Set when device operations (id, expires at, reported at) have to be looked at, and were last reported."""
    await device_sql.ARM.run(connection, list(expiries))


async def wait_for_standbys(connection: AsyncConnection) -> None:
    """Make the commit wait for synchronous standbys even if the transaction has changed nothing.

    PostgreSQL has only those wait that write. What one without a change has found may be of a commit that no
    standby has: it was given up while it waited, and is visible since. The message would be acknowledged, and be
    lost with the primary.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(_WRITE_NOTHING)


async def set_operations(
    connection: AsyncConnection,
    changed: Mapping[UUID, StoredOperation],
    history: Sequence[tuple[UUID, str, datetime]],
    tasks: Sequence[tuple[UUID, str]],
    groups: Mapping[GroupKey, Group],
) -> None:
    """Write what follows from an operation's counters and announcements; history has (operation, state, time).

    `tasks` are what is then left to do (operation, task); `groups` is what to add to groups by cause.
    """
    rows = [
        (
            id_,
            each.operation_type,
            each.state,
            each.expected,
            *each.timing,
            each.abort,
            each.tripped,
            each.reason,
        )
        for id_, each in changed.items()
    ]
    runs = (
        (operation_sql.SET_OPERATIONS, rows),
        (operation_sql.NOTE_STATES, history),
        (operation_sql.BEGIN_TASKS, tasks),
        (group_sql.COUNT, reason_groups.rows_of(groups)),
    )
    counted = await run_together(connection, *runs)
    if groups:
        await reason_groups.count_others(connection, groups, counted)


async def begin_tasks(connection: AsyncConnection, tasks: Sequence[tuple[UUID, str]]) -> None:
    """Note what is left to do for operations (operation, task)."""
    await operation_sql.BEGIN_TASKS.run(connection, tasks)


async def describe(connection: AsyncConnection, announced: Mapping[UUID, Sequence[Announcement]]) -> None:
    """Write the descriptive fields of announcements: the last value of each field; missing fields are kept."""
    await operation_sql.DESCRIBE.run(
        connection, [(id_, *_description(announcements)) for id_, announcements in announced.items()]
    )


def _description(announcements: Sequence[Announcement]) -> Iterator[object]:
    for name in list(operation_sql.DESCRIBE.rows)[1:]:
        values = [getattr(announcement, name) for announcement in announcements]
        value = next((value for value in reversed(values) if value is not None), None)
        yield with_json(value)
