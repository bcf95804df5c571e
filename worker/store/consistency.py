"""Consistency checks other than counters: histories, states, and rows without the row that they refer to."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Uuid, bindparam, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import ABOVE, State, Verdict, shows_dispatch
from worker.model import state_times
from worker.model.causes import cause
from worker.store.database import Database
from worker.store.tables import (
    activity,
    announcements,
    dead_letter_history,
    dead_letters,
    device_operations,
    operation_activity,
    operation_minutes,
    operations,
    reason_groups,
)

WRONG_HISTORIES = "wrong_histories"
"""Device operations whose history lacks a state of a report, or has it later than the earliest report; or whose
state or dispatched flag is below what the history shows."""
_OF_REPORT = tuple(device_operations.c[name] for name in ("reason", "code", "service_id", "cause"))
"""Columns that follow from the report that moved a device operation to its state."""
SIZE = 500
"""Device operations whose histories are corrected in one transaction."""

OWNERS: Mapping[str, tuple[Column[Any], Column[Any]]] = {
    "reports_without_device_operation": (activity.c.device_operation_id, device_operations.c.id),
    "states_without_operation": (operation_activity.c.operation_id, operations.c.id),
    "announcements_without_operation": (announcements.c.operation_id, operations.c.id),
    "groups_without_operation": (reason_groups.c.operation_id, operations.c.id),
    "minutes_without_operation": (operation_minutes.c.operation_id, operations.c.id),
    "entries_without_dead_letter": (dead_letter_history.c.dead_letter_id, dead_letters.c.id),
}
"""Columns that refer to a row, and the column referred to. `recount` reports missing operations."""

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
"""Whether `d.reached`, the history of a device operation, lacks a report's state or has it too late."""


_DISPATCHED = [state for state in State if shows_dispatch(Verdict.APPLIED, state)]


def _is_behind(dialect: str) -> str:
    """SQL: whether a device operation's state or dispatched flag is below what its history shows."""
    position = "strpos" if dialect == "postgresql" else "instr"

    def has(states: Iterable[State]) -> str:
        return " OR ".join(f"{position}(d.reached, '{state:d}=') > 0" for state in states)

    below = [f"d.state = {state:d} AND ({has(above)})" for state, above in ABOVE.items() if above]
    return " OR ".join([f"NOT d.dispatched AND ({has(_DISPATCHED)})", *below])


async def wrong_histories(connection: AsyncConnection) -> dict[UUID, int]:
    """The number of device operations with a wrong history or state, by operation.

    Only stored reports are checked: other states of a history may be those of pruned reports.
    """
    dialect = connection.dialect.name
    query = text(f"""
        SELECT operation_id, count(*) AS number FROM (
            SELECT d.id, d.operation_id
            FROM ({_EARLIEST}) e JOIN device_operations d ON d.id = e.device_operation_id
            WHERE {_IS_WRONG[dialect]}
            UNION
            SELECT d.id, d.operation_id FROM device_operations d WHERE {_is_behind(dialect)}
        ) AS wrong
        GROUP BY operation_id
    """)  # noqa: S608  # our constants
    rows = await connection.execute(query.columns(operation_id=Uuid))
    return {row.operation_id: row.number for row in rows}


async def fix_histories(database: Database, operation_id: UUID) -> None:
    """Correct the histories of an operation's device operations, and states and flags that are below them.

    In transactions of `SIZE` rows, while workers run. The counters have to be recounted afterwards.
    """
    column, after = device_operations.c, UUID(int=0)
    while True:
        async with database.write() as connection:
            page = select(column.id, column.state, column.dispatched, column.reached, *_OF_REPORT)
            page = page.where(column.operation_id == operation_id, column.id > after).order_by(column.id)
            rows = (await connection.execute(page.limit(SIZE).with_for_update())).all()
            if not rows:
                return
            after = rows[-1].id
            histories: dict[UUID, str] = {row.id: row.reached for row in rows}
            earliest = select(activity.c.device_operation_id, activity.c.state, func.min(activity.c.created_at))
            earliest = earliest.where(activity.c.device_operation_id.in_(histories))
            for id_, state, at in await connection.execute(
                earliest.group_by(activity.c.device_operation_id, activity.c.state)
            ):
                histories[id_] = state_times.noted(histories[id_], State(state), at)
            changes = []
            for row in rows:
                states = state_times.read(history := histories[row.id]).keys()
                above = [state for state in states if state in ABOVE[State(row.state)]]
                highest = int(above[-1]) if above else row.state  # sorted by rank
                is_dispatched = row.dispatched or not states.isdisjoint(_DISPATCHED)
                if (highest, is_dispatched, history) == (row.state, row.dispatched, row.reached):
                    continue
                change = {"state": highest, "dispatched": is_dispatched, "reached": history}
                if highest != row.state:
                    change |= await _of_report(connection, row.id, State(highest))
                of_report = {each.name: getattr(row, each.name) for each in _OF_REPORT}
                changes.append(
                    {f"{name}_": value for name, value in (of_report | change).items()} | {"id_": row.id}
                )
            if changes:
                names = "state", "dispatched", "reached", *(each.name for each in _OF_REPORT)
                values: dict[str, Any] = {name: bindparam(f"{name}_") for name in names}
                setting = update(device_operations).where(column.id == bindparam("id_")).values(values)
                await connection.execute(setting, changes)


async def _of_report(connection: AsyncConnection, id_: UUID, state: State) -> dict[str, Any]:
    """What a device operation has of the first report of its state; of one that is pruned, nothing."""
    query = select(activity.c.reason, activity.c.code, activity.c.service_id)
    query = query.where(activity.c.device_operation_id == id_, activity.c.state == state)
    row = (await connection.execute(query.order_by(activity.c.created_at).limit(1))).one_or_none()
    reason, code, service_id = ("", None, None) if row is None else row
    return {"reason": reason, "code": code, "service_id": service_id, "cause": cause(state, code, reason)}


async def rows_without_owner(connection: AsyncConnection) -> dict[str, int]:
    """The number of rows whose owner is missing, by the keys of `OWNERS`; zeros are omitted."""
    found = {}
    for name, (owned, owner) in OWNERS.items():
        query = select(func.count()).select_from(owned.table).where(~select(owner).where(owner == owned).exists())
        found[name] = (await connection.execute(query)).scalar_one()
    return {name: number for name, number in found.items() if number}


async def remove_rows_without_owner(database: Database) -> None:
    """Delete rows whose owner is missing, so that their reports are not duplicates if they arrive again."""
    async with database.write() as connection:
        for owned, owner in OWNERS.values():
            await connection.execute(delete(owned.table).where(~select(owner).where(owner == owned).exists()))
