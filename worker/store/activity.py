"""Complete histories in pages: accepted reports of a device operation, states of an operation."""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import ABOVE, State
from worker.store import documents
from worker.store.pagination import PageRequest, PageResult, neighbours
from worker.store.tables import activity, operation_activity

Result = TypeVar("Result")

_RANK = case({state.value: -len(ABOVE[state]) for state in State}, value=activity.c.state)


async def page_of_reports(
    connection: AsyncConnection, device_operation: UUID, request: PageRequest
) -> PageResult[documents.AcceptedReport]:
    """One page of the accepted reports of a device operation, sorted by the time at which each state was reached.

    No index has this order, since every insert would pay for it: the database reads and sorts all reports of the
    device operation.
    """
    scope = activity.c.device_operation_id == device_operation
    order = _order(request, activity.c.created_at, _RANK, activity.c.report_id)
    query = select(activity).where(scope).order_by(*order)
    results = [
        documents.AcceptedReport(
            report_id=row.report_id,
            state=State(row.state).name,
            verdict=row.verdict,
            service_id=row.service_id,
            reason=row.reason,
            code=row.code,
            created_at=row.created_at,
            note=row.note,
        )
        for row in await connection.execute(query.limit(request.limit).offset(request.offset))
    ]
    return await _page(connection, scope, results, request)


async def page_of_activity(
    connection: AsyncConnection, operation_id: UUID, request: PageRequest
) -> PageResult[documents.OperationActivity]:
    """One page of the states of an operation, in the order of the request."""
    scope = operation_activity.c.operation_id == operation_id
    query = select(operation_activity).where(scope).order_by(*_order(request, operation_activity.c.id))
    results = [
        documents.OperationActivity(operation_state=row.state, created_at=row.created_at)
        for row in await connection.execute(query.limit(request.limit).offset(request.offset))
    ]
    return await _page(connection, scope, results, request)


def _order(request: PageRequest, *columns: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    return [column.desc() if request.ordering.is_descending else column for column in columns]


async def _page(
    connection: AsyncConnection, scope: ColumnElement[bool], results: Sequence[Result], request: PageRequest
) -> PageResult[Result]:
    count = (await connection.execute(select(func.count()).where(scope))).scalar_one()
    return PageResult(count, results, *neighbours(request.limit, request.offset, count))
