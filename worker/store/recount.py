"""The proof that the counters are exact: every operation's device operations, counted again."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters, State, contribution, operation_state
from worker.store import batch
from worker.store.database import Database
from worker.store.tables import device_operations, operations, recounts


@dataclass(frozen=True, slots=True)
class Drift:
    """An operation whose stored counters differ from a recount."""

    operation_id: UUID
    stored: Counters
    actual: Counters


@dataclass(frozen=True, slots=True)
class Recount:
    """The last recount: when, and how many operations it found wrong and did not put right."""

    at: datetime
    drifted: int


async def keep_recount(database: Database, drifted: int) -> None:
    """Remember what a recount found, instead of what the one before did, for those who watch."""
    async with database.write() as connection:
        await connection.execute(delete(recounts))
        await connection.execute(insert(recounts), {"at": datetime.now(UTC), "drifted": drifted})


async def last_recount(connection: AsyncConnection) -> Recount | None:
    """The last recount, None if there was none."""
    query = select(recounts.c.at, recounts.c.drifted).order_by(recounts.c.at.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return Recount(*row) if row else None


async def find_drift(database: Database) -> tuple[int, list[Drift]]:
    """Recount every operation in one snapshot; returns how many there are, and those that drifted."""
    async with database.read() as connection:
        actual = await _recount(connection)
        rows = await connection.execute(
            select(operations.c.id, *(operations.c[name] for name in Counters._fields)).order_by(operations.c.id)
        )
        stored = {id_: Counters(*counters) for id_, *counters in rows}
    return len(stored), [
        Drift(id_, counters, actual[id_]) for id_, counters in stored.items() if counters != actual[id_]
    ]


async def fix_drift(database: Database, drifted: list[Drift]) -> None:
    """Set the counters, and the states that follow from them, to a recount.

    Safe beside running workers: they count last in their transactions, under the same lock, so a recount
    under that lock sees exactly the device operations that are already counted for.
    """
    now = datetime.now(UTC)
    for drift in drifted:
        async with database.write() as connection:
            locked = await batch.write(connection, (), (), {drift.operation_id: Counters()}, now)
            actual = await _recount(connection, drift.operation_id)
            for id_, before in locked.items():
                delta = actual[id_].plus(before.counters, -1)
                await batch.write(connection, (), (), {id_: delta}, now)
                state = operation_state(actual[id_], before.expected)
                if state != before.state:
                    changed = {id_: before._replace(state=state)}
                    await batch.set_operations(connection, changed, [(id_, state, now)])


async def _recount(connection: AsyncConnection, operation_id: UUID | None = None) -> defaultdict[UUID, Counters]:
    key = (device_operations.c.operation_id, device_operations.c.state, device_operations.c.dispatched)
    query = select(*key, func.count()).group_by(*key)
    if operation_id is not None:
        query = query.where(device_operations.c.operation_id == operation_id)
    totals: defaultdict[UUID, Counters] = defaultdict(Counters)
    for id_, state, dispatched, count in await connection.execute(query):
        totals[id_] = totals[id_].plus(contribution(State(state), dispatched), count)
    return totals
