"""A device: its device operations with their latest reports, and the dead letters that name it.

The cost is bounded by the rows of a page, whatever number of reports and dead letters there are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Expiry
from worker.model.causes import masked
from worker.model.identity import device_operation_id
from worker.model.timing import moment
from worker.store import activity, documents, due, listing, queries
from worker.store.activity import Received
from worker.store.operation_filter import OperationFilter
from worker.store.pagination import PageRequest, PageResult
from worker.store.tables import dead_letters, device_operations, operations

SHOWN_REPORTS = 5
"""Accepted reports of each device operation in a list of them."""
LOOKED_AT = 20_000
"""Dead letters among which those of a device are looked for, the latest: no index has the device."""


class DeviceOperationRow(NamedTuple):
    """A device operation, and what its document does not have."""

    document: documents.DeviceOperation
    operation_type: str
    code: str | None
    service_id: str | None
    """Of the report that moved it to its state; None if an announcement registered it."""
    cause: str | None
    """The masked reason by which it is grouped; None if it is not grouped, or by its code."""
    dispatched: bool
    registered_at: datetime
    dispatched_at: datetime | None
    reported_at: datetime
    """When a report of it was last accepted."""
    expiry: Expiry | None


class Reports(NamedTuple):
    """The accepted reports of a device operation."""

    number: int
    """At most `activity.MOST_READ` + 1."""
    latest: Sequence[Received]
    """At most `SHOWN_REPORTS`, latest first; empty if there are more than `activity.MOST_READ`."""
    verdicts: Mapping[tuple[str, str], int]
    """Their number by state and verdict; empty if there are more than `activity.MOST_READ`."""

    @property
    def is_more(self) -> bool:
        """Whether there are more than were read."""
        return self.number > activity.MOST_READ


class LatestLetters(NamedTuple):
    """Dead letters, latest first."""

    letters: Sequence[documents.DeadLetterSummary]
    is_more: bool
    """Whether there are more."""
    looked_at: int | None = None
    """Among how many of the latest dead letters they were looked for; None: among all."""


async def page(
    connection: AsyncConnection, device_id: UUID, request: PageRequest
) -> PageResult[tuple[DeviceOperationRow, Reports]]:
    """One page of a device's device operations, those of the latest operations first."""
    chosen = OperationFilter(device_id=device_id)
    found = await listing.find(connection, await chosen.listing(connection), request)
    ids = [device_operation_id(operation_id, device_id) for operation_id in found.results]
    rows = {row.document.id: row for row in await _rows(connection, ids)}
    reports = await activity.latest_of(connection, ids)
    return found.with_results([(rows[id_], _reports(reports.get(id_, ()))) for id_ in ids if id_ in rows])


async def get(connection: AsyncConnection, id_: UUID) -> DeviceOperationRow | None:
    """One device operation, None if it is not registered."""
    found = await _rows(connection, [id_])
    return found[0] if found else None


async def _rows(connection: AsyncConnection, ids: Sequence[UUID]) -> list[DeviceOperationRow]:
    column = device_operations.c
    query = select(device_operations, operations.c.operation_type).where(column.id.in_(ids))
    joined = query.join(operations, operations.c.id == column.operation_id, isouter=True)
    rows = (await connection.execute(joined)).all()
    expiries = await due.expiries_of(connection, ids)
    return [_row(row, row.operation_type or "", expiries.get(row.id)) for row in rows]


def _row(row: Row[Any], operation_type: str, expiry: Expiry | None) -> DeviceOperationRow:
    return DeviceOperationRow(
        queries.document_of(row),
        operation_type,
        row.code,
        row.service_id,
        masked(row.reason) if row.cause is not None and row.code is None else None,
        row.dispatched,
        moment(row.registered_at),
        None if row.dispatched_at is None else moment(row.dispatched_at),
        moment(row.reported_at),
        expiry,
    )


def _reports(found: Sequence[Received]) -> Reports:
    if len(found) > activity.MOST_READ:
        return Reports(len(found), (), {})
    verdicts = Counter((each.report.state, each.report.verdict) for each in found)
    return Reports(len(found), found[:SHOWN_REPORTS], verdicts)


async def letters_of_device(connection: AsyncConnection, device_id: UUID, limit: int) -> LatestLetters:
    """The latest dead letters that name a device, whatever their status."""
    newest = select(dead_letters.c.id, dead_letters.c.device_id).order_by(dead_letters.c.id.desc())
    latest = newest.limit(LOOKED_AT).subquery().c
    found = select(latest.id).where(latest.device_id == device_id).order_by(latest.id.desc()).limit(limit + 1)
    ids = (await connection.scalars(found)).all()
    count = select(func.count()).select_from(select(dead_letters.c.id).limit(LOOKED_AT + 1).subquery())
    is_all = len(ids) > limit or (await connection.execute(count)).scalar_one() <= LOOKED_AT
    return LatestLetters(
        await _letters(connection, dead_letters.c.id.in_(ids[:limit]), limit),
        len(ids) > limit,
        None if is_all else LOOKED_AT,
    )


async def letters_of_device_operation(connection: AsyncConnection, id_: UUID, limit: int) -> LatestLetters:
    """The latest dead letters that name a device operation, whatever their status and whether it is registered."""
    found = await _letters(connection, dead_letters.c.device_operation_id == id_, limit + 1)
    return LatestLetters(found[:limit], len(found) > limit)


async def _letters(
    connection: AsyncConnection, condition: ColumnElement[bool], limit: int
) -> list[documents.DeadLetterSummary]:
    column = dead_letters.c
    columns = [column[name] for name in documents.DeadLetterSummary.model_fields]
    query = select(*columns).where(condition).order_by(column.id.desc()).limit(limit)
    return [
        documents.DeadLetterSummary.model_validate(dict(row._mapping)) for row in await connection.execute(query)
    ]
