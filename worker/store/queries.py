"""What people and programs read. No query runs once per row of another's result."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import ABOVE, Counters, OperationState, State, Verdict
from worker.messages import device_operation_id
from worker.store import pages, views
from worker.store.pages import Page, Window
from worker.store.tables import activity, device_operations, operation_activity, operations


async def list_operations(
    connection: AsyncConnection, limit: int | None = None
) -> list[tuple[views.Operation, views.Progress]]:
    """Operations, the latest first."""
    return await _operations(
        connection, select(operations).order_by(operations.c.created_at.desc(), operations.c.id).limit(limit)
    )


async def page_of_operations(
    connection: AsyncConnection, state: OperationState | None, window: Window, device_id: UUID | None = None
) -> Page[views.Operation]:
    """One page of the operations in a state, if one is named, or of those of them that a device takes part in."""
    scope: ColumnElement[bool] = true()
    if device_id is not None:
        taking_part = select(device_operations.c.operation_id).where(device_operations.c.device_id == device_id)
        scope = operations.c.id.in_(taking_part)
    wanted = scope if state is None else scope & (operations.c.state == state)
    counting = select(operations.c.state, func.count().label("number")).where(wanted).group_by(operations.c.state)
    counts = {row.state: row.number for row in await connection.execute(counting)}
    page = await pages.find(connection, operations, scope, counts, list(OperationState), window)
    found = await get_operations(connection, page.results)
    by_id = {operation.id: operation for operation, _ in found}
    return page.holding([by_id[id_] for id_ in page.results])


async def is_device(connection: AsyncConnection, device_id: UUID) -> bool:
    """Whether a device takes part in any operation."""
    query = select(device_operations.c.id).where(device_operations.c.device_id == device_id).limit(1)
    return (await connection.execute(query)).first() is not None


async def count_operations(connection: AsyncConnection) -> int:
    """How many operations there are."""
    return (await connection.execute(select(func.count()).select_from(operations))).scalar_one()


async def get_operation(
    connection: AsyncConnection, operation_id: UUID
) -> tuple[views.Operation, views.Progress] | None:
    """One operation, None if it is unknown."""
    found = await get_operations(connection, [operation_id])
    return found[0] if found else None


async def get_operations(
    connection: AsyncConnection, ids: Collection[UUID]
) -> list[tuple[views.Operation, views.Progress]]:
    """Those operations that are known."""
    return await _operations(connection, select(operations).where(operations.c.id.in_(ids)))


async def _operations(
    connection: AsyncConnection, query: Select[Any]
) -> list[tuple[views.Operation, views.Progress]]:
    rows = (await connection.execute(query)).all()
    entries = await connection.execute(
        select(operation_activity)
        .where(operation_activity.c.operation_id.in_(query.with_only_columns(operations.c.id)))
        .order_by(operation_activity.c.id)
    )
    history: defaultdict[UUID, list[views.OperationActivity]] = defaultdict(list)
    for entry in entries:
        history[entry.operation_id].append(
            views.OperationActivity(operation_state=entry.state, created_at=entry.created_at)
        )
    return [_operation(row, history[row.id]) for row in rows]


def _operation(row: Row[Any], history: list[views.OperationActivity]) -> tuple[views.Operation, views.Progress]:
    counters = Counters(*(getattr(row, name) for name in Counters._fields))
    operation = views.Operation(
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
        operation_stats=views.OperationStats(
            device_operation_statuses_count=views.DeviceCounts.model_validate(counters._asdict())
        ),
    )
    return operation, views.Progress(counters, row.expected_device_count)


async def page_of_device_operations(
    connection: AsyncConnection, progress: views.Progress, operation_id: UUID, state: State | None, window: Window
) -> Page[views.DeviceOperation]:
    """One page of an operation's device operations, of those in a state if one is named.

    Nothing is counted: the operation's counters, which the same transaction has read, know the numbers.
    """
    counts = {each: progress.counters.in_state(each) for each in State if state in (None, each)}
    scope = device_operations.c.operation_id == operation_id
    page = await pages.find(connection, device_operations, scope, counts, list(State), window)
    query = select(device_operations).where(device_operations.c.id.in_(page.results))
    found = await _device_operations(connection, (await connection.execute(query)).all())
    by_id = {device_operation.id: device_operation for device_operation in found}
    return page.holding([by_id[id_] for id_ in page.results])


async def devices_in(connection: AsyncConnection, operation_id: UUID, states: Collection[State]) -> list[UUID]:
    """The devices of an operation whose device operations are in one of the states."""
    query = select(device_operations.c.device_id).where(
        device_operations.c.operation_id == operation_id, device_operations.c.state.in_(states)
    )
    return list((await connection.execute(query)).scalars())


async def get_device_operation(
    connection: AsyncConnection, operation_id: UUID, device_id: UUID
) -> views.DeviceOperation | None:
    """One device operation, None if it is not registered."""
    id_ = device_operation_id(operation_id, device_id)
    rows = await connection.execute(select(device_operations).where(device_operations.c.id == id_))
    found = await _device_operations(connection, rows.all())
    return found[0] if found else None


async def get_state(connection: AsyncConnection, device_operation: UUID) -> State | None:
    """The state of a device operation, None if it is not registered."""
    query = select(device_operations.c.state).where(device_operations.c.id == device_operation)
    code = (await connection.execute(query)).scalar_one_or_none()
    return None if code is None else State(code)


async def _device_operations(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> list[views.DeviceOperation]:
    history = await _history(connection, [row.id for row in rows])
    return [
        views.DeviceOperation(
            id=row.id,
            operation_id=row.operation_id,
            device_id=row.device_id,
            state=State(row.state).name,
            reason=row.reason,
            created_at=row.created_at,
            updated_at=row.updated_at,
            device_operation_activity=[
                views.DeviceOperationActivity(device_operation_state=entry.state, created_at=entry.created_at)
                for entry in history[row.id]
                if entry.verdict == Verdict.APPLIED
            ],
        )
        for row in rows
    ]


async def history(connection: AsyncConnection, device_operation: UUID) -> list[views.HistoryEntry]:
    """Every accepted report of a device operation, oldest first."""
    return (await _history(connection, [device_operation]))[device_operation]


async def _history(
    connection: AsyncConnection, ids: Iterable[UUID]
) -> defaultdict[UUID, list[views.HistoryEntry]]:
    rows = await connection.execute(select(activity).where(activity.c.device_operation_id.in_(ids)))
    found: defaultdict[UUID, list[views.HistoryEntry]] = defaultdict(list)
    # Of entries with the same time the lower state comes first: it has the more states above it.
    for row in sorted(rows, key=lambda row: (row.created_at, -len(ABOVE[State(row.state)]))):
        found[row.device_operation_id].append(
            views.HistoryEntry(
                row.created_at, State(row.state).name, row.verdict, row.service_id, row.reason, row.report_id
            )
        )
    return found
