"""Read queries of the CLI and the API. No query runs once per row of another one (no N+1)."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters, State
from worker.model import state_times
from worker.model.identity import device_operation_id
from worker.store import documents, listing
from worker.store.device_filter import DeviceFilter
from worker.store.operation_filter import OperationFilter
from worker.store.pagination import PageRequest, PageResult
from worker.store.tables import device_operations, operation_activity, operations


async def list_operations(
    connection: AsyncConnection, limit: int | None = None
) -> list[tuple[documents.Operation, documents.Progress]]:
    """Operations, newest first."""
    return await _operations(
        connection, select(operations).order_by(operations.c.created_at.desc(), operations.c.id).limit(limit)
    )


async def page_of_operations(
    connection: AsyncConnection, chosen: OperationFilter, request: PageRequest
) -> PageResult[documents.Operation]:
    """One page of the operations that match a filter."""
    page = await listing.find(connection, await chosen.listing(connection), request)
    found = await get_operations(connection, page.results)
    by_id = {operation.id: operation for operation, _ in found}
    return page.with_results([by_id[id_] for id_ in page.results])


async def is_device(connection: AsyncConnection, device_id: UUID) -> bool:
    """Whether a device has a device operation in any operation."""
    query = select(device_operations.c.id).where(device_operations.c.device_id == device_id).limit(1)
    return (await connection.execute(query)).first() is not None


async def count_operations(connection: AsyncConnection) -> int:
    """The number of operations."""
    return (await connection.execute(select(func.count()).select_from(operations))).scalar_one()


async def get_operation(
    connection: AsyncConnection, operation_id: UUID
) -> tuple[documents.Operation, documents.Progress] | None:
    """One operation, None if it is unknown."""
    found = await get_operations(connection, [operation_id])
    return found[0] if found else None


async def get_operations(
    connection: AsyncConnection, ids: Collection[UUID]
) -> list[tuple[documents.Operation, documents.Progress]]:
    """The operations with these ids that exist, in no particular order."""
    return await _operations(connection, select(operations).where(operations.c.id.in_(ids)))


async def _operations(
    connection: AsyncConnection, query: Select[Any]
) -> list[tuple[documents.Operation, documents.Progress]]:
    rows = (await connection.execute(query)).all()
    entries = await connection.execute(_latest_activity(query))
    history: defaultdict[UUID, list[documents.OperationActivity]] = defaultdict(list)
    for operation_id, state, created_at in entries:
        history[operation_id].append(documents.OperationActivity(state, created_at))
    return [_operation(row, history[row.id]) for row in rows]


def _latest_activity(query: Select[Any]) -> Select[Any]:
    """The latest `LATEST_ACTIVITY` entries of each operation, oldest first; older entries are not read."""
    asked = query.with_only_columns(operations.c.id).subquery()
    entry, earlier = operation_activity.c, operation_activity.alias()
    first = (
        select(earlier.c.id)
        .where(earlier.c.operation_id == asked.c.id)
        .order_by(earlier.c.id.desc())
        .limit(1)
        .offset(documents.LATEST_ACTIVITY - 1)
        .scalar_subquery()
    )
    # MATERIALIZED: inlined into the join, PostgreSQL would run the subquery for each entry, not each operation.
    shown = select(asked.c.id, func.coalesce(first, 0).label("first")).cte().prefix_with("MATERIALIZED")
    is_shown = (entry.operation_id == shown.c.id) & (entry.id >= shown.c.first)
    columns = entry.operation_id, entry.state, entry.created_at
    return select(*columns).join(shown, is_shown).order_by(entry.id)


def _operation(
    row: Row[Any], history: list[documents.OperationActivity]
) -> tuple[documents.Operation, documents.Progress]:
    counters = Counters(*(getattr(row, name) for name in Counters._fields))
    operation = documents.Operation(
        id=row.id,
        operation=row.operation_type or "",
        state=row.state,
        schedule_type=row.schedule_type,
        schedule_args=row.schedule_args or {},
        operation_device_query=row.operation_device_query or {},
        arguments=row.arguments or {},
        reason=row.reason or "",
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
        operation_activity=history,
        operation_stats=documents.OperationStats(
            device_operation_statuses_count=documents.DeviceCounts.model_validate(counters._asdict())
        ),
    )
    return operation, documents.Progress(counters, row.expected_device_count)


async def page_of_device_operations(
    connection: AsyncConnection,
    progress: documents.Progress,
    operation_id: UUID,
    chosen: DeviceFilter,
    request: PageRequest,
) -> PageResult[documents.DeviceOperation]:
    """One page of an operation's device operations that match a filter.

    Filtered by states alone, the total is taken from the operation's counters (`progress`, read in the same
    transaction), not counted; with other filters it is at most `MAX_COUNT`.
    """
    page = await listing.find(connection, chosen.listing(operation_id, progress), request)
    query = select(device_operations).where(device_operations.c.id.in_(page.results))
    by_id = {row.id: document_of(row) for row in await connection.execute(query)}
    return page.with_results([by_id[id_] for id_ in page.results])


async def codes_of(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, str]:
    """By id the codes of the reports that moved device operations to their states, of those that have one."""
    column = device_operations.c
    query = select(column.id, column.code).where(column.id.in_(ids), column.code.is_not(None))
    return {row.id: row.code for row in await connection.execute(query)}


async def devices_in(connection: AsyncConnection, operation_id: UUID, states: Collection[State]) -> list[UUID]:
    """The devices of an operation whose device operations are in one of the states."""
    query = select(device_operations.c.device_id).where(
        device_operations.c.operation_id == operation_id, device_operations.c.state.in_(states)
    )
    return list((await connection.execute(query)).scalars())


async def get_device_operation(
    connection: AsyncConnection, operation_id: UUID, device_id: UUID
) -> documents.DeviceOperation | None:
    """One device operation, None if it is not registered."""
    id_ = device_operation_id(operation_id, device_id)
    row = (await connection.execute(select(device_operations).where(device_operations.c.id == id_))).one_or_none()
    return document_of(row) if row else None


async def get_state(connection: AsyncConnection, device_operation: UUID) -> State | None:
    """The state of a device operation, None if it is not registered."""
    query = select(device_operations.c.state).where(device_operations.c.id == device_operation)
    code = (await connection.execute(query)).scalar_one_or_none()
    return None if code is None else State(code)


def document_of(row: Row[Any]) -> documents.DeviceOperation:
    """The document of a row of `device_operations`."""
    times = state_times.complete(row.reached, State(row.state), row.created_at, row.updated_at)
    return documents.DeviceOperation(
        id=row.id,
        operation_id=row.operation_id,
        device_id=row.device_id,
        state=State(row.state).name,
        reason=row.reason,
        created_at=row.created_at,
        updated_at=row.updated_at,
        device_operation_activity=[
            documents.DeviceOperationActivity(device_operation_state=state.name, created_at=at)
            for state, at in times.items()
        ],
    )
