"""Recount of groups by cause: verifies them against the device operations, and corrects them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, case, func, literal, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import State
from worker.model.causes import GROUPED, OTHER, PREFIX, Group, GroupKey, Groups, cause
from worker.store import reason_groups as store
from worker.store.database import Database
from worker.store.tables import device_operations, reason_groups

WRONG_GROUPS = "wrong_reason_groups"
"""Groups of an operation whose number is not that of their device operations."""
SIZE = 500
"""Device operations whose causes are corrected in one transaction."""

_device, _group = device_operations.c, reason_groups.c
_KEY = _device.operation_id, _device.state, func.coalesce(_device.cause, OTHER).label("cause")


async def wrong_groups(connection: AsyncConnection) -> dict[UUID, int]:
    """The number of wrong groups by operation; a group that is missing counts as one."""
    counted = select(*_KEY, func.count().label("devices")).where(_device.state.in_(GROUPED)).group_by(*_KEY)
    actual = counted.subquery().c
    has_group = (
        (_group.operation_id == actual.operation_id)
        & (_group.state == actual.state)
        & (_group.cause == actual.cause)
    )
    in_group = case((_group.cause.is_(None), literal(OTHER)), else_=actual.cause).label("cause")
    both = union_all(
        select(_group.operation_id, _group.state, _group.cause, _group.devices),
        select(actual.operation_id, actual.state, in_group, -actual.devices).outerjoin(reason_groups, has_group),
    ).subquery()
    key = both.c.operation_id, both.c.state, both.c.cause
    wrong = select(both.c.operation_id).group_by(*key).having(func.sum(both.c.devices) != 0).subquery().c
    query = select(wrong.operation_id, func.count().label("number")).group_by(wrong.operation_id)
    return {row.operation_id: row.number for row in await connection.execute(query)}


async def fix_groups(connection: AsyncConnection, operation_id: UUID) -> None:
    """Correct the groups of an operation, whose row the transaction has locked."""
    stored = {
        GroupKey(operation_id, State(row.state), row.cause): row.devices
        for row in await connection.execute(select(reason_groups).where(_group.operation_id == operation_id))
    }
    groups = Groups(stored, {operation_id: sum(key.cause != OTHER for key in stored)})
    for key, devices in stored.items():
        groups.add(key, Group(-devices))
    query = select(
        *_KEY,
        func.count().label("devices"),
        func.min(_device.code).label("code"),
        func.min(_device.reason).label("reason"),
        func.min(_device.updated_at).label("first_at"),
        func.max(_device.updated_at).label("last_at"),
    ).where(_device.operation_id == operation_id, _device.state.in_(GROUPED))
    for row in await connection.execute(query.group_by(*_KEY)):
        found = Group.of(row.code, row.reason, row.first_at)._replace(devices=row.devices, last_at=row.last_at)
        groups.add(GroupKey(operation_id, State(row.state), row.cause), found)
    await store.count(connection, {key: group for key, group in groups.changes.items() if group.devices})


async def fix_causes(database: Database, operation_id: UUID) -> None:
    """Correct the causes of an operation's device operations, as a worker of an older version leaves them.

    In transactions of `SIZE` rows, while workers run. The groups have to be recounted afterwards.
    """
    is_made_of_reason = func.coalesce(_device.cause.startswith(PREFIX), False)
    is_wrong = case(
        (_device.code.is_not(None), _device.cause.is_distinct_from(_device.code)),
        (_device.state.in_(GROUPED), ~is_made_of_reason),
        else_=_device.cause.is_not(None),
    )
    query = select(_device.id, _device.state, _device.code, _device.reason)
    query = query.where(_device.operation_id == operation_id, is_wrong).order_by(_device.id).limit(SIZE)
    setting = update(device_operations).where(_device.id == bindparam("id_")).values(cause=bindparam("cause_"))
    after = UUID(int=0)
    while True:
        async with database.write() as connection:
            found = await connection.execute(query.where(_device.id > after).with_for_update())
            rows: Sequence[Any] = found.all()
            if not rows:
                return
            after = rows[-1].id
            causes = [{"id_": row.id, "cause_": cause(State(row.state), row.code, row.reason)} for row in rows]
            await connection.execute(setting, causes)
