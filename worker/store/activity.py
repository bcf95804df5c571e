"""What documents leave out of histories, page by page: every accepted report, every state of an operation."""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import ABOVE, State
from worker.store import documents
from worker.store.pagination import Page, Window, neighbours
from worker.store.tables import activity, operation_activity

Result = TypeVar("Result")

_RANK = case({state.value: -len(ABOVE[state]) for state in State}, value=activity.c.state)


async def page_of_reports(
    connection: AsyncConnection, device_operation: UUID, window: Window
) -> Page[documents.AcceptedReport]:
    """The accepted reports of a device operation, in the order in which their states were reached.

    No index has this order, since every report would pay for it: the database reads all reports of the device
    operation, and keeps those of the page.
    """
    scope = activity.c.device_operation_id == device_operation
    order = _order(window, activity.c.created_at, _RANK, activity.c.report_id)
    query = select(activity).where(scope).order_by(*order)
    results = [
        documents.AcceptedReport(
            report_id=row.report_id,
            state=State(row.state).name,
            verdict=row.verdict,
            service_id=row.service_id,
            reason=row.reason,
            created_at=row.created_at,
            note=row.note,
        )
        for row in await connection.execute(query.limit(window.limit).offset(window.offset))
    ]
    return await _page(connection, scope, results, window)


async def page_of_activity(
    connection: AsyncConnection, operation_id: UUID, window: Window
) -> Page[documents.OperationActivity]:
    """The states that an operation reached, the oldest first."""
    scope = operation_activity.c.operation_id == operation_id
    query = select(operation_activity).where(scope).order_by(*_order(window, operation_activity.c.id))
    results = [
        documents.OperationActivity(operation_state=row.state, created_at=row.created_at)
        for row in await connection.execute(query.limit(window.limit).offset(window.offset))
    ]
    return await _page(connection, scope, results, window)


def _order(window: Window, *columns: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    return [column.desc() if window.ordering.is_descending else column for column in columns]


async def _page(
    connection: AsyncConnection, scope: ColumnElement[bool], results: Sequence[Result], window: Window
) -> Page[Result]:
    count = (await connection.execute(select(func.count()).where(scope))).scalar_one()
    return Page(count, results, *neighbours(window.limit, window.offset, count))
