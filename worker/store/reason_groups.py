"""Groups of device operations by cause: counting under the operations' locks, and reading."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import State
from worker.model.causes import OTHER, Group, GroupKey, Groups
from worker.store import documents
from worker.store.pagination import PageResult, neighbours
from worker.store.statements.reason_groups import COUNT
from worker.store.tables import reason_groups


def rows_of(changes: Mapping[GroupKey, Group]) -> list[tuple[Any, ...]]:
    """Changes of groups, as the rows of `COUNT`."""
    return [(*key, *group) for key, group in changes.items()]


async def count(connection: AsyncConnection, changes: Mapping[GroupKey, Group]) -> None:
    """Add to groups of operations that are locked.

    Beyond `MAX_GROUPS` of an operation, new causes are counted as `OTHER`.
    """
    await count_others(connection, changes, await COUNT.run(connection, rows_of(changes)))


async def count_others(
    connection: AsyncConnection, changes: Mapping[GroupKey, Group], counted: Sequence[Any]
) -> None:
    """Add to `OTHER` what `COUNT` had no group for: all of `changes` but what it returned."""
    if len(counted) == len(changes):
        return
    keys = {GroupKey(operation_id, State(state), cause) for operation_id, state, cause in counted}
    others = Groups()
    for key, group in changes.items():
        if key not in keys:
            others.add_other(key, group)
    await COUNT.run(connection, rows_of(others.changes))


class StoredGroup(NamedTuple):
    """A group, its example, and whether it is that of the causes beyond the limit."""

    document: documents.ReasonGroup
    example: str
    is_other: bool


async def largest(
    connection: AsyncConnection, operation_id: UUID, limit: int | None = None, offset: int = 0
) -> list[StoredGroup]:
    """Groups of an operation, the largest first, without empty ones."""
    column = reason_groups.c
    query = select(reason_groups).where(*_of(operation_id))
    query = query.order_by(column.devices.desc(), column.state, column.cause).limit(limit).offset(offset)
    return [_stored(row) for row in await connection.execute(query)]


async def number_of(connection: AsyncConnection, operation_id: UUID) -> int:
    """The number of groups of an operation, without empty ones."""
    query = select(func.count()).select_from(reason_groups).where(*_of(operation_id))
    return int((await connection.execute(query)).scalar_one())


async def page(
    connection: AsyncConnection, operation_id: UUID, limit: int, offset: int
) -> PageResult[StoredGroup]:
    """One page of the groups of an operation, the largest first."""
    number = await number_of(connection, operation_id)
    found = await largest(connection, operation_id, limit, offset)
    return PageResult(number, found, *neighbours(limit, offset, number))


def _of(operation_id: UUID) -> list[ColumnElement[bool]]:
    return [reason_groups.c.operation_id == operation_id, reason_groups.c.devices > 0]


def _stored(row: Row[Any]) -> StoredGroup:
    is_other = row.cause == OTHER
    document = documents.ReasonGroup(
        state=State(row.state).name,
        code=row.code,
        reason=documents.OTHER_REASONS if is_other else row.reason if row.code is None else row.example,
        count=row.devices,
        first_at=row.first_at,
        last_at=row.last_at,
    )
    return StoredGroup(document, row.example, is_other)
