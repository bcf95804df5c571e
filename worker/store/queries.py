"""What people and programs read. No query runs once per row of another's result."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import ABOVE, Counters, State, Verdict
from worker.messages import device_operation_id
from worker.store import views
from worker.store.tables import activity, device_operations, operation_activity, operations


async def list_operations(
    connection: AsyncConnection, limit: int | None = None
) -> list[tuple[views.Operation, views.Progress]]:
    """Operations, the latest first."""
    return await _operations(
        connection, select(operations).order_by(operations.c.created_at.desc(), operations.c.id).limit(limit)
    )


async def count_operations(connection: AsyncConnection) -> int:
    """How many operations there are."""
    return (await connection.execute(select(func.count()).select_from(operations))).scalar_one()


async def get_operation(
    connection: AsyncConnection, operation_id: UUID
) -> tuple[views.Operation, views.Progress] | None:
    """One operation, None if it is unknown."""
    found = await _operations(connection, select(operations).where(operations.c.id == operation_id))
    return found[0] if found else None


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


async def list_device_operations(
    connection: AsyncConnection, operation: views.Operation, state: State | None, limit: int, offset: int
) -> views.Page:
    """One page of an operation's device operations, oldest first."""
    wanted = device_operations.c.operation_id == operation.id
    if state is None:
        count = operation.operation_stats.device_operation_statuses_count.resolved_device_count
    else:
        wanted &= device_operations.c.state == state
        counting = select(func.count()).select_from(device_operations).where(wanted)
        count = (await connection.execute(counting)).scalar_one()
    rows = await connection.execute(
        select(device_operations)
        .where(wanted)
        .order_by(device_operations.c.created_at, device_operations.c.id)
        .limit(limit)
        .offset(offset)
    )

    def address(start: int) -> str:
        filters = {"state": state.name} if state else {}
        return f"/v0/operations/{operation.id}/devices/?{urlencode({**filters, 'limit': limit, 'offset': start})}"

    return views.Page(
        count=count,
        previous=address(max(0, offset - limit)) if offset else None,
        next=address(offset + limit) if offset + limit < count else None,
        results=await _device_operations(connection, rows.all()),
    )


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
