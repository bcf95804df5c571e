"""A page of operations with how each goes, at a cost that is bounded by the rows of the page.

What would take as long as an operation is large is looked at in part, and says so: the timeouts that are due
first of all operations, and parked reports up to a number.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import OperationState
from worker.model.outcomes import Reason, Status
from worker.model.pace import Pace, pace
from worker.model.timing import Timing, Tripped, effective, moment, threshold
from worker.store import documents, listing, minutes, queries
from worker.store.operation_filter import OperationFilter
from worker.store.pagination import PageRequest, PageResult
from worker.store.tables import dead_letters, device_operations, operations

MOST_PARKED = 1_000
"""Up to which the parked reports of an operation are counted."""
TIMEOUTS_READ = 2_000
"""Timeouts that are looked at, the soonest of all operations."""


class NextTimeout(NamedTuple):
    """When the next device operation of an operation expires: at a time, or later than that."""

    at: datetime
    is_later: bool


class OperationRow(NamedTuple):
    """An operation, and how it goes."""

    operation: documents.Operation
    progress: documents.Progress
    pace: Pace
    next_timeout: NextTimeout | None
    """None if none can expire soon: it has no timeouts, or nothing is open."""
    tripped: str
    """What crossed the abort threshold, in words; empty if nothing has."""
    parked: int
    """Parked reports, at most `MOST_PARKED`."""


async def page(
    connection: AsyncConnection, chosen: OperationFilter, request: PageRequest
) -> PageResult[OperationRow]:
    """One page of the operations that match a filter."""
    found = await listing.find(connection, await chosen.listing(connection), request)
    return found.with_results(await rows(connection, found.results))


async def rows(connection: AsyncConnection, ids: Sequence[UUID]) -> list[OperationRow]:
    """The operations with these ids that exist, in the order of the ids."""
    by_id = {found.id: (found, progress) for found, progress in await queries.get_operations(connection, ids)}
    paces = await paces_of(connection, [found for found, _ in by_id.values()])
    open_ids = [id_ for id_, (_, progress) in by_id.items() if progress.open]
    timeouts = await _next_timeouts(connection, open_ids)
    tripped, parked = await _tripped(connection, ids), await _parked(connection, ids)
    return [
        OperationRow(
            *by_id[id_],
            paces.get(id_, Pace()),
            timeouts.get(id_),
            tripped.get(id_, ""),
            parked.get(id_, 0),
        )
        for id_ in ids
        if id_ in by_id
    ]


async def paces_of(connection: AsyncConnection, found: Collection[documents.Operation]) -> Mapping[UUID, Pace]:
    """How those of the operations go that are neither waiting to begin nor over."""
    going = [each.id for each in found if each.state == OperationState.DISPATCHING]
    return {id_: pace(course) for id_, course in (await minutes.courses_of(connection, going)).items()}


async def _next_timeouts(connection: AsyncConnection, ids: Collection[UUID]) -> Mapping[UUID, NextTimeout]:
    """Of open operations, when the next device operation expires, as far as `TIMEOUTS_READ` reach."""
    if not ids:
        return {}
    column = device_operations.c
    query = select(column.operation_id, column.expires_at).where(column.expires_at.is_not(None))
    first = query.order_by(column.expires_at).limit(TIMEOUTS_READ).subquery().c
    grouped = select(first.operation_id, func.min(first.expires_at), func.count()).group_by(first.operation_id)
    found = (await connection.execute(grouped)).all()
    soonest = {id_: NextTimeout(moment(at), is_later=False) for id_, at, _ in found if id_ in ids}
    if sum(number for _, _, number in found) < TIMEOUTS_READ:
        return soonest
    last = (await connection.execute(select(func.max(first.expires_at)))).scalar_one()
    can_expire = await _with_timeouts(connection, [id_ for id_ in ids if id_ not in soonest])
    return soonest | dict.fromkeys(can_expire, NextTimeout(moment(last), is_later=True))


async def _with_timeouts(connection: AsyncConnection, ids: Collection[UUID]) -> list[UUID]:
    """Those that have timeouts."""
    column = operations.c
    query = select(column.id, column.operation_type, column.timeouts, column.deadline, column.schedule_end)
    found = await connection.execute(query.where(column.id.in_(ids)))
    return [id_ for id_, type_, *timing in found if effective(Timing(*timing), type_) is not None]


async def _tripped(connection: AsyncConnection, ids: Collection[UUID]) -> Mapping[UUID, str]:
    column = operations.c
    query = select(column.id, column.tripped, column.abort).where(column.id.in_(ids), column.tripped.is_not(None))
    return {
        id_: Tripped.read(tripped).in_words(threshold(abort)) if abort else "aborted"
        for id_, tripped, abort in await connection.execute(query)
    }


async def _parked(connection: AsyncConnection, ids: Collection[UUID]) -> Mapping[UUID, int]:
    column = dead_letters.c
    # Literals in the statement's text, so that the partial index can be used.
    status: BindParameter[str] = bindparam("status", Status.OPEN.value, literal_execute=True)
    reason: BindParameter[str] = bindparam("reason", Reason.UNKNOWN_DEVICE_OPERATION.value, literal_execute=True)
    id_ = operations.c.id
    parked = select(column.id).where(column.status == status, column.reason == reason, column.operation_id == id_)
    number = select(func.count()).select_from(parked.limit(MOST_PARKED).correlate(operations).subquery())
    query = select(id_, number.scalar_subquery()).where(id_.in_(ids))
    return {row[0]: row[1] for row in await connection.execute(query)}
