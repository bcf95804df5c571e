"""Queries on dead letters, and changes of their status."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Row, Select, Subquery, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import ABOVE
from worker.model.identity import body_id, device_operation_id, identity
from worker.model.messages import Message, Origin
from worker.model.outcomes import AT_ONCE, Action, Reason, Status
from worker.store import dead_letter_batch, documents
from worker.store.queries import get_state
from worker.store.rows import HistoryEntry
from worker.store.selection import Selection
from worker.store.tables import dead_letter_history, dead_letters, device_operations

PAGE_BYTES = 16_000_000
"""Approximate limit of the bytes of bodies in a page: an undeliverable bulk message may have megabytes."""

_c = dead_letters.c


class GroupBy(StrEnum):
    """Keys to count dead letters by."""

    REASON = "reason"
    SERVICE = "service"
    OPERATION = "operation"
    DETAIL = "detail"


_GROUPS = {
    GroupBy.REASON: _c.reason,
    GroupBy.SERVICE: _c.service_id,
    GroupBy.OPERATION: _c.operation_id,
    GroupBy.DETAIL: _c.detail,
}


async def find(
    connection: AsyncConnection, selection: Selection, limit: int | None = None, offset: int = 0
) -> list[documents.DeadLetterSummary]:
    """The selected dead letters, oldest first, at most `limit` after the first `offset`."""
    columns = [_c[name] for name in documents.DeadLetterSummary.model_fields]
    query = select(*columns).where(selection.condition()).order_by(_c.id).limit(limit).offset(offset)
    return [
        documents.DeadLetterSummary.model_validate(dict(row._mapping)) for row in await connection.execute(query)
    ]


async def page_by_id(
    connection: AsyncConnection,
    selection: Selection,
    limit: int,
    *,
    before: int | None = None,
    after: int | None = None,
) -> list[documents.DeadLetterSummary]:
    """At most `limit` of the selected dead letters, newest first: before an id, or else the next after one."""
    columns = [_c[name] for name in documents.DeadLetterSummary.model_fields]
    query = select(*columns).where(selection.condition()).limit(limit)
    if after is not None:
        query = query.where(_c.id > after).order_by(_c.id)
    else:
        query = (query if before is None else query.where(_c.id < before)).order_by(_c.id.desc())
    rows = (await connection.execute(query)).all()
    found = [documents.DeadLetterSummary.model_validate(dict(row._mapping)) for row in rows]
    return found[::-1] if after is not None else found


async def count(connection: AsyncConnection, selection: Selection, within: int | None = None) -> int:
    """The number of selected dead letters; `within` bounds it, and the time that it takes."""
    query = select(func.count()).select_from(among(selection, within, _c.id))
    return (await connection.execute(query)).scalar_one()


def among(selection: Selection, within: int | None, *columns: Column[Any]) -> Subquery:
    """Columns of the selected dead letters; `within` is how many, the newest ones, None for all."""
    query = select(*columns).where(selection.condition())
    return (query if within is None else query.order_by(_c.id.desc()).limit(within)).subquery()


async def count_by(
    connection: AsyncConnection,
    selection: Selection,
    group_by: GroupBy,
    limit: int | None = None,
    within: int | None = None,
) -> list[documents.Group]:
    """The number of selected dead letters by group, the `limit` largest groups first.

    `within` is how many are counted, the newest ones, None for all.
    """
    counted = among(selection, within, _GROUPS[group_by], _c.received_at).c
    column, number = counted[_GROUPS[group_by].name], func.count().label("count")
    oldest, newest = func.min(counted.received_at).label("oldest"), func.max(counted.received_at).label("newest")
    rows = await connection.execute(
        select(column, number, oldest, newest).group_by(column).order_by(number.desc(), column).limit(limit)
    )
    return [documents.Group(column.name, *row) for row in rows]


async def get(connection: AsyncConnection, id_: int) -> documents.DeadLetterDetails | None:
    """One dead letter with all details, None if it does not exist."""
    row = (await connection.execute(select(dead_letters).where(_c.id == id_))).one_or_none()
    if row is None:
        return None
    histories = await histories_of(connection, [row], documents.LATEST_ENTRIES)
    corrections = await connection.execute(select(_c.id).where(_c.corrects == id_).order_by(_c.id))
    state = None
    if row.operation_id is not None and row.device_id is not None:
        state = await get_state(connection, device_operation_id(row.operation_id, row.device_id))
    return documents.DeadLetterDetails(
        **row._mapping,
        corrected_by=list(corrections.scalars()),
        current_state=None if state is None else state.name,
        allowed_states=None if state is None else [above.name for above in sorted(ABOVE[state])],
        history=histories[id_],
    )


async def histories_of(
    connection: AsyncConnection, rows: Sequence[Row[Any]], latest: int | None = None
) -> dict[int, list[documents.DeadLetterEntry]]:
    """Histories of dead letters by id, each beginning with its receipt.

    `latest` limits the entries after that to the latest ones; None reads all.
    """
    column = dead_letter_history.c
    newest = func.row_number().over(partition_by=column.dead_letter_id, order_by=column.id.desc())
    query = select(dead_letter_history, newest.label("number"))
    numbered = query.where(column.dead_letter_id.in_([row.id for row in rows])).subquery()
    is_read = true() if latest is None else (numbered.c.number <= latest)
    is_first = numbered.c.action == Action.RECEIVED.value
    entries = await connection.execute(select(numbered).where(is_read | is_first).order_by(numbered.c.id))
    found: dict[int, list[documents.DeadLetterEntry]] = {row.id: [] for row in rows}
    for entry in entries:
        found[entry.dead_letter_id].append(documents.DeadLetterEntry.model_validate(entry, from_attributes=True))
    for row in rows:
        found[row.id] = found[row.id] or _unwritten(row)
    return found


def _unwritten(row: Row[Any]) -> list[documents.DeadLetterEntry]:
    """The history of a dead letter without stored entries, unchanged since the batch that created it."""
    received = documents.DeadLetterEntry(
        at=row.received_at, actor=None, action=Action.RECEIVED, outcome=row.reason, detail=row.detail
    )
    if row.status == Status.OPEN:
        return [received]
    released = documents.DeadLetterEntry(
        at=row.resolved_at, actor=None, action=Action.RELEASED, outcome="", detail=AT_ONCE
    )
    return [received, released]


async def by_fingerprint(connection: AsyncConnection, fingerprints: Collection[UUID]) -> dict[UUID, Row[Any]]:
    """Rows of dead letters by fingerprint."""
    rows = await connection.execute(select(dead_letters).where(_c.fingerprint.in_(fingerprints)))
    return {row.fingerprint: row for row in rows}


async def ids_of(
    connection: AsyncConnection, selection: Selection, limit: int | None = None, after: int = 0
) -> Sequence[int]:
    """Ids of the selected dead letters, oldest first, at most `limit`, after an id."""
    query = select(_c.id).where(selection.condition()).order_by(_c.id).limit(limit)
    query = query.where(_c.id > after) if after else query
    return (await connection.execute(query)).scalars().all()


async def page(
    connection: AsyncConnection, ids: Sequence[int], status: Status | None
) -> tuple[Sequence[Row[Any]], int]:
    """Rows of the dead letters that still have the status, and the number of ids that were examined.

    Fewer than all ids are examined if the bodies exceed `PAGE_BYTES`.
    """
    lengths = await connection.execute(select(_c.id, func.length(_c.body).label("length")).where(_c.id.in_(ids)))
    length = {row.id: row.length for row in lengths}
    looked_at = total = 0
    while looked_at < len(ids) and total < PAGE_BYTES:
        total += length.get(ids[looked_at], 0)
        looked_at += 1
    selection = Selection(ids[:looked_at], status=status)
    rows = await connection.execute(select(dead_letters).where(selection.condition()).order_by(_c.id))
    return rows.all(), looked_at


async def set_status(
    connection: AsyncConnection,
    rows: Sequence[Row[Any]],
    status: Status,
    action: Action,
    outcome: str,
    actor: str,
    now: datetime,
    *,
    is_done: bool = False,
) -> list[int]:
    """Set the status of the dead letters that have not changed since they were read; returns their ids.

    `is_done` adds an entry to the histories of the others too: the action was done with them.
    """
    stored = await dead_letter_batch.lock(connection, [row.id for row in rows])
    unchanged = [row.id for row in rows if stored.get(row.id) == (row.status, row.attempts, row.body_removed_at)]
    noted = list(stored) if is_done else unchanged
    await dead_letter_batch.note_history(
        connection, [HistoryEntry(id_, now, actor, action, outcome, "") for id_ in noted]
    )
    await connection.execute(
        update(dead_letters)
        .where(_c.id.in_(unchanged))
        .values(status=status, resolved_at=None if status is Status.OPEN else now)
    )
    return unchanged


async def write_history(
    connection: AsyncConnection, entries: Iterable[tuple[int, documents.DeadLetterEntry]]
) -> None:
    """Insert entries (dead letter id, entry) into the histories of dead letters."""
    rows = [{"dead_letter_id": id_, **entry.model_dump()} for id_, entry in entries]
    if rows:
        await connection.execute(insert(dead_letter_history), rows)


async def parked_and_registered(
    connection: AsyncConnection, after: int, limit: int
) -> tuple[int | None, Sequence[UUID]]:
    """Scan the next `limit` parked reports after an id; returns the last id, None at the end, and the ids of the
    device operations that are registered.
    """
    condition = Selection(reason=Reason.UNKNOWN_DEVICE_OPERATION).condition() & (_c.id > after)
    found = select(_c.id, _c.device_operation_id).where(condition).order_by(_c.id).limit(limit).subquery()
    last = (await connection.execute(select(func.max(found.c.id)))).scalar_one()
    registered = await connection.execute(
        select(device_operations.c.id).where(device_operations.c.id.in_(select(found.c.device_operation_id)))
    )
    return last, registered.scalars().all()


async def parked(
    connection: AsyncConnection, stale_before: datetime, limit: int, operation_id: UUID | None = None
) -> list[documents.Parked]:
    """Parked reports by operation, the operations with the oldest report first, at most `limit`.

    Reports received before `stale_before` are stale.
    """
    group = _parked(stale_before, operation_id).subquery()
    rows = await connection.execute(select(group).order_by(group.c.oldest, group.c.operation_id).limit(limit))
    return [documents.Parked(*row) for row in rows]


async def open_by_reason(connection: AsyncConnection) -> dict[Reason, int]:
    """Numbers of open dead letters, for every reason."""
    query = select(_c.reason, func.count().label("number")).where(Selection().condition()).group_by(_c.reason)
    counts = {row.reason: row.number for row in await connection.execute(query)}
    return {reason: counts.get(reason, 0) for reason in Reason}


async def backlog(connection: AsyncConnection, stale_before: datetime) -> documents.Backlog:
    """Totals of all parked reports."""
    group = _parked(stale_before).subquery().c
    query = select(
        func.coalesce(func.sum(group["count"]), 0),
        func.count(),
        func.coalesce(func.sum(group.stale), 0),
        func.count().filter(group.stale > 0),
        func.min(group.oldest),
    )
    reports, operations, stale, stale_operations, oldest = (await connection.execute(query)).one()
    return documents.Backlog(int(reports), operations, int(stale), stale_operations, oldest)


def _parked(stale_before: datetime, operation_id: UUID | None = None) -> Select[Any]:
    selection = Selection(reason=Reason.UNKNOWN_DEVICE_OPERATION, operation_id=operation_id)
    return (
        select(
            _c.operation_id,
            func.count().label("count"),
            func.count().filter(_c.received_at < stale_before).label("stale"),
            func.min(_c.received_at).label("oldest"),
        )
        .where(selection.condition())
        .group_by(_c.operation_id)
    )


def stored_message(row: Row[Any]) -> Message:
    """Restore the message of a dead letter."""
    return Message(
        content=row.body,
        received_at=row.received_at,
        # An announcement without an id is news each time; this one is the same however often it is replayed.
        message_id=identity(row.message_id) or body_id(row.body),
        type=row.type,
        sent_at=row.sent_at,
        origin=lambda: Origin(row.exchange, row.routing_key, row.properties, row.headers),
        dead_letter_id=row.id,
    )
