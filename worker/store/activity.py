"""Complete histories in pages: accepted reports of a device operation, states of an operation."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Row, case, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import ABOVE, State
from worker.store import documents
from worker.store.pagination import PageRequest, PageResult, neighbours
from worker.store.tables import activity, operation_activity

Result = TypeVar("Result")

MOST_READ = 100
"""Accepted reports of a device operation that are read where those of several are."""


class Received(NamedTuple):
    """An accepted report, and when it was received, to the second; None before schema 0006."""

    report: documents.AcceptedReport
    at: datetime | None


_RANK = case({state.value: -len(ABOVE[state]) for state in State}, value=activity.c.state)


async def page_of_reports(
    connection: AsyncConnection, device_operation: UUID, request: PageRequest
) -> PageResult[documents.AcceptedReport]:
    """One page of the accepted reports of a device operation, sorted by the time at which each state was reached.

    No index has this order, since every insert would pay for it: the database reads and sorts all reports of the
    device operation.
    """
    page = await page_of_received(connection, device_operation, request)
    return page.with_results([each.report for each in page.results])


async def page_of_received(
    connection: AsyncConnection, device_operation: UUID, request: PageRequest
) -> PageResult[Received]:
    """The same with when each report was received."""
    scope = activity.c.device_operation_id == device_operation
    order = _order(request, activity.c.created_at, _RANK, activity.c.report_id)
    query = select(activity).where(scope).order_by(*order)
    rows = await connection.execute(query.limit(request.limit).offset(request.offset))
    return await _page(connection, scope, [_received(row) for row in rows], request)


async def latest_of(connection: AsyncConnection, ids: Collection[UUID]) -> Mapping[UUID, Sequence[Received]]:
    """The accepted reports of several device operations, latest first, of each that has any.

    At most `MOST_READ` + 1 rows of each are read; of one that has more, these are not the latest.
    """
    column = activity.c
    branches = [
        select(select(activity).where(column.device_operation_id == id_).limit(MOST_READ + 1).subquery())
        for id_ in ids
    ]
    found: defaultdict[UUID, list[Received]] = defaultdict(list)
    if branches:
        for row in await connection.execute(union_all(*branches)):
            found[row.device_operation_id].append(_received(row))
    for reports in found.values():
        reports.sort(key=_place, reverse=True)
    return found


def _place(received: Received) -> tuple[datetime, int, str]:
    report = received.report
    return report.created_at, -len(ABOVE[State[report.state]]), report.report_id


def _received(row: Row[Any]) -> Received:
    report = documents.AcceptedReport(
        report_id=row.report_id,
        state=State(row.state).name,
        verdict=row.verdict,
        service_id=row.service_id,
        reason=row.reason,
        code=row.code,
        created_at=row.created_at,
        note=row.note,
    )
    return Received(report, None if row.recorded_at is None else datetime.fromtimestamp(row.recorded_at, UTC))


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
