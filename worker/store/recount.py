"""Recount: verifies every operation's counters against its device operations.

Operations are read in pages, in one snapshot. `worker.store.consistency` has the other checks.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters, State, contribution, operation_state
from worker.errors import DeviceopsError
from worker.model.changes import Change, Told, device_operations_changed, operation_changed, told
from worker.model.operation import StoredOperation, Task
from worker.store import batch, consistency, group_recount, outbox
from worker.store.database import Database
from worker.store.tables import device_operations, operations, recounts

SIZE = 1_000
"""Operations on a page."""

_CODES = frozenset(State)

Facts = Mapping[str, int | str]
"""Counters and state of an operation; if there are any, the numbers of what else is wrong."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Stored and actual values of an operation; `stored` is None if the operation is missing.

    `operation_id` is None for rows whose owner is missing.
    """

    operation_id: UUID | None
    stored: Facts | None
    actual: Facts


@dataclass(frozen=True, slots=True)
class Recount:
    """The last recount: its time, and the number of wrong operations that it did not correct."""

    at: datetime
    drifted: int


async def keep_recount(database: Database, drifted: int) -> None:
    """Store the result of a recount, in place of the previous one, for the metrics."""
    async with database.write() as connection:
        await connection.execute(delete(recounts))
        await connection.execute(insert(recounts), {"at": datetime.now(UTC), "drifted": drifted})


async def last_recount(connection: AsyncConnection) -> Recount | None:
    """The last recount, None if there was none."""
    query = select(recounts.c.at, recounts.c.drifted).order_by(recounts.c.at.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return Recount(*row) if row else None


async def find_drift(database: Database) -> tuple[int, list[Drift]]:
    """Recount every operation in one snapshot; returns the number of operations and the differences."""
    count = 0
    drifted = []
    async with database.read() as connection:
        histories = await consistency.wrong_histories(connection)
        groups = await group_recount.wrong_groups(connection)
        async for stored, actual in _operations(connection):
            count += len(stored)
            for id_ in sorted(stored.keys() | actual.keys()):
                wrong = {
                    consistency.WRONG_HISTORIES: histories.get(id_, 0),
                    group_recount.WRONG_GROUPS: groups.get(id_, 0),
                }
                drift = _compared(id_, stored.get(id_), actual[id_], wrong)
                if drift.stored != drift.actual:
                    drifted.append(drift)
        for name, number in (await consistency.rows_without_owner(connection)).items():
            drifted.append(Drift(None, {name: number}, {name: 0}))
    return count, drifted


def _compared(id_: UUID, stored: StoredOperation | None, actual: Counters, wrong: Mapping[str, int]) -> Drift:
    expected = stored.expected if stored else None
    found: dict[str, int | str] = {**actual._asdict(), "state": operation_state(actual, expected)}
    if stored is None:
        return Drift(id_, None, found)
    kept: dict[str, int | str] = {**stored.counters._asdict(), "state": stored.state}
    for name, number in wrong.items():
        if number:
            kept[name], found[name] = number, 0
    return Drift(id_, kept, found)


async def fix_drift(database: Database, drifted: list[Drift]) -> None:
    """Correct counters, states, histories and groups according to a recount.

    A missing operation is created, without its announced fields; rows whose owner is missing are deleted, so that
    their reports are not duplicates if they arrive again.

    Safe while workers run: they update counters last in their transactions, under the same lock, so a recount
    under that lock sees exactly the device operations that are counted.
    """
    now = datetime.now(UTC)
    for drift in drifted:
        if drift.operation_id is None:
            continue
        if drift.stored is not None and consistency.WRONG_HISTORIES in drift.stored:
            await consistency.fix_histories(database, drift.operation_id)
        await group_recount.fix_causes(database, drift.operation_id)
        async with database.write() as connection:
            if drift.stored is None:
                await batch.create_operations(connection, {drift.operation_id: now})
            nothing = {drift.operation_id: Counters()}
            locked = await batch.write(connection, (), (), nothing, now, 0, is_told=False)
            actual = await _recount(connection, device_operations.c.operation_id == drift.operation_id)
            await group_recount.fix_groups(connection, drift.operation_id)
            for id_, before in locked.items():
                delta, is_told = {id_: actual[id_].plus(before.counters, -1)}, told() is not Told.NONE
                fixed = (await batch.write(connection, (), (), delta, now, 0, is_told=is_told))[id_]
                state = operation_state(actual[id_], before.expected)
                if is_told:
                    await outbox.tell(connection, _changes(id_, before, fixed._replace(state=state), now))
                if state != before.state:
                    changed = {id_: before._replace(state=state)}
                    await batch.set_operations(connection, changed, [(id_, state, now)], (), {})
            # States may have been corrected, and so when a device operation expires.
            await batch.begin_tasks(connection, [(drift.operation_id, Task.ARM)])
    if any(drift.operation_id is None for drift in drifted):  # missing operations exist again
        await consistency.remove_rows_without_owner(database)


def _changes(id_: UUID, before: StoredOperation, fixed: StoredOperation, at: datetime) -> list[Change]:
    """What is told of an operation that was corrected."""
    type_, sequence = fixed.operation_type, fixed.sequence
    changes = [operation_changed(id_, type_, sequence, fixed.state, before.state, fixed.counters, at)]
    if told() is Told.ALL:
        changes += device_operations_changed(id_, type_, sequence, ())
    return changes


async def _operations(
    connection: AsyncConnection,
) -> AsyncIterator[tuple[dict[UUID, StoredOperation], defaultdict[UUID, Counters]]]:
    """Yield pages of operations by id as stored, and recounted counters; these include missing operations."""
    column = operations.c
    query = select(
        column.id,
        column.operation_type,
        column.state,
        column.expected_device_count,
        *(column[name] for name in Counters._fields),
    )
    after: ColumnElement[bool] = true()
    owned_after: ColumnElement[bool] = true()
    while True:
        rows = (await connection.execute(query.where(after).order_by(column.id).limit(SIZE))).all()
        stored = {
            id_: StoredOperation(type_, state, expected, Counters(*counters))
            for id_, type_, state, expected, *counters in rows
        }
        if len(rows) < SIZE:
            yield stored, await _recount(connection, owned_after)
            return
        last = rows[-1].id
        yield stored, await _recount(connection, owned_after & (device_operations.c.operation_id <= last))
        after, owned_after = column.id > last, device_operations.c.operation_id > last


async def _recount(connection: AsyncConnection, condition: ColumnElement[bool]) -> defaultdict[UUID, Counters]:
    key = (device_operations.c.operation_id, device_operations.c.state, device_operations.c.dispatched)
    query = select(*key, func.count()).where(condition).group_by(*key)
    totals: defaultdict[UUID, Counters] = defaultdict(Counters)
    for id_, state, dispatched, count in await connection.execute(query):
        if state not in _CODES:
            raise DeviceopsError(
                f"operation {id_}: {count} device operations are stored in {state}, which is not a state"
            )
        totals[id_] = totals[id_].plus(contribution(State(state), dispatched), count)
    return totals
