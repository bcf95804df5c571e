"""What has to agree beside counters: histories with the reports that they are of, and rows with their owners."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Uuid, bindparam, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import State
from worker import reached
from worker.store.database import Database
from worker.store.tables import (
    activity,
    announcements,
    dead_letter_history,
    dead_letters,
    device_operations,
    operation_activity,
    operations,
)

WRONG_HISTORIES = "wrong_histories"
"""Device operations that lack a state which a report has named, or have it later than the earliest report."""
SIZE = 500
"""Device operations whose histories are put right in one transaction."""

OWNERS: Mapping[str, tuple[Column[Any], Column[Any]]] = {
    "reports_without_device_operation": (activity.c.device_operation_id, device_operations.c.id),
    "states_without_operation": (operation_activity.c.operation_id, operations.c.id),
    "announcements_without_operation": (announcements.c.operation_id, operations.c.id),
    "entries_without_dead_letter": (dead_letter_history.c.dead_letter_id, dead_letters.c.id),
}
"""Rows that need an owner, and which. Of device operations without an operation the recount tells."""

_EARLIEST = """
SELECT device_operation_id, state, min(created_at) AS at FROM device_operation_activity
GROUP BY device_operation_id, state
"""
_IS_WRONG = {
    "postgresql": "strpos(d.reached, e.state || '=') = 0 OR "
    "substr(d.reached, strpos(d.reached, e.state || '=') + 3, 15) > lpad(to_hex("
    "CAST(extract(epoch FROM e.at) * 1000000 AS bigint) + 62135596800000000), 15, '0') COLLATE \"C\"",
    "sqlite": "instr(d.reached, e.state || '=') = 0 OR "
    "substr(d.reached, instr(d.reached, e.state || '=') + 3, 15) > printf('%015x', "
    "CAST(strftime('%s', substr(e.at, 1, 19)) AS INTEGER) * 1000000 + CAST(substr(e.at, 21) AS INTEGER)"
    " + 62135596800000000)",  # strftime rounds what comes after the seconds
}
"""Whether what a device operation has reached, the text `d.reached`, lacks a report's state or has it too late."""


async def wrong_histories(connection: AsyncConnection) -> dict[UUID, int]:
    """How many device operations have a history that differs from their reports, by operation.

    As far as reports are there: a state from before the earliest one may be that of a report that was pruned.
    """
    query = text(f"""
        SELECT d.operation_id, count(DISTINCT d.id) AS number
        FROM ({_EARLIEST}) e JOIN device_operations d ON d.id = e.device_operation_id
        WHERE {_IS_WRONG[connection.dialect.name]}
        GROUP BY d.operation_id
    """)  # noqa: S608  # our constants
    rows = await connection.execute(query.columns(operation_id=Uuid))
    return {row.operation_id: row.number for row in rows}


async def fix_histories(database: Database, operation_id: UUID) -> None:
    """Put the histories of an operation's device operations right, some at a time, beside running workers."""
    column, after = device_operations.c, UUID(int=0)
    while True:
        async with database.write() as connection:
            page = select(column.id, column.reached).where(column.operation_id == operation_id, column.id > after)
            rows = (await connection.execute(page.order_by(column.id).limit(SIZE).with_for_update())).all()
            if not rows:
                return
            after = rows[-1].id
            stored: dict[UUID, str] = {row.id: row.reached for row in rows}
            earliest = select(activity.c.device_operation_id, activity.c.state, func.min(activity.c.created_at))
            earliest = earliest.where(activity.c.device_operation_id.in_(stored))
            fixed = dict(stored)
            for id_, state, at in await connection.execute(
                earliest.group_by(activity.c.device_operation_id, activity.c.state)
            ):
                fixed[id_] = reached.noted(fixed[id_], State(state), at)
            changes = [{"one": id_, "fixed": text_} for id_, text_ in fixed.items() if text_ != stored[id_]]
            if changes:
                setting = update(device_operations).where(column.id == bindparam("one"))
                await connection.execute(setting.values(reached=bindparam("fixed")), changes)


async def rows_without_owner(connection: AsyncConnection) -> dict[str, int]:
    """How many rows lack the one that they belong to, by what they are; without those that there are none of."""
    found = {}
    for name, (owned, owner) in OWNERS.items():
        query = select(func.count()).select_from(owned.table).where(~select(owner).where(owner == owned).exists())
        found[name] = (await connection.execute(query)).scalar_one()
    return {name: number for name, number in found.items() if number}


async def remove_rows_without_owner(database: Database) -> None:
    """Remove them: nobody sees them, and a report that is among them would be a duplicate where it comes again."""
    async with database.write() as connection:
        for owned, owner in OWNERS.values():
            await connection.execute(delete(owned.table).where(~select(owner).where(owner == owned).exists()))
