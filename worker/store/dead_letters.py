"""Dead letters as people look for them, and as commands work through them: in pages, the oldest first."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import ABOVE
from worker.model.identity import body_id, device_operation_id, identity
from worker.model.messages import Message, Origin
from worker.model.outcomes import AT_ONCE, Action, Reason, Status
from worker.store import batch, documents
from worker.store.queries import get_state
from worker.store.selection import Selection
from worker.store.tables import dead_letter_history, dead_letters, device_operations

PAGE_BYTES = 16_000_000
"""Bytes of bodies that are read at once, about: a bulk message that was given up may have megabytes."""

_c = dead_letters.c


class GroupBy(StrEnum):
    """What dead letters can be counted by."""

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
) -> list[documents.DeadLetter]:
    """The selected dead letters, the oldest `limit` of them after the first `offset`."""
    columns = [_c[name] for name in documents.DeadLetter.model_fields]
    query = select(*columns).where(selection.condition()).order_by(_c.id).limit(limit).offset(offset)
    return [documents.DeadLetter.model_validate(dict(row._mapping)) for row in await connection.execute(query)]


async def count(connection: AsyncConnection, selection: Selection) -> int:
    """How many dead letters are selected."""
    query = select(func.count()).select_from(dead_letters).where(selection.condition())
    return (await connection.execute(query)).scalar_one()


async def count_by(
    connection: AsyncConnection, selection: Selection, group_by: GroupBy, limit: int | None = None
) -> list[documents.Group]:
    """How many of the selected dead letters there are of each kind, the most frequent `limit` kinds first."""
    column = _GROUPS[group_by]
    number = func.count().label("count")
    rows = await connection.execute(
        select(column, number, func.min(_c.received_at).label("oldest"), func.max(_c.received_at).label("newest"))
        .where(selection.condition())
        .group_by(column)
        .order_by(number.desc(), column)
        .limit(limit)
    )
    return [documents.Group(column.name, *row) for row in rows]


async def get(connection: AsyncConnection, id_: int) -> documents.DeadLetterDetails | None:
    """One dead letter with everything that was kept of it, None if there is none."""
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
    """What was done with dead letters, by id, beginning with how each was received.

    `latest` is how many of the entries after that are read, None for all.
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
    """The history of a dead letter that nothing was done with since the batch that it came in."""
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
    """The rows of dead letters, by fingerprint."""
    rows = await connection.execute(select(dead_letters).where(_c.fingerprint.in_(fingerprints)))
    return {row.fingerprint: row for row in rows}


async def ids_of(connection: AsyncConnection, selection: Selection, limit: int | None = None) -> Sequence[int]:
    """The ids of the selected dead letters, the oldest `limit` of them."""
    query = select(_c.id).where(selection.condition()).order_by(_c.id).limit(limit)
    return (await connection.execute(query)).scalars().all()


async def page(
    connection: AsyncConnection, ids: Sequence[int], status: Status | None
) -> tuple[Sequence[Row[Any]], int]:
    """The rows of dead letters that still stand at a status, and how many of the ids were looked at.

    Those are all, unless their bodies are large.
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


async def mark(
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
    """Change where dead letters stand that are still as they were read; returns the ids of those.

    `is_done` is whether the action was done with the others too, so that their histories get an entry as well.
    """
    stored = await batch.lock_dead_letters(connection, [row.id for row in rows])
    unchanged = [row.id for row in rows if stored.get(row.id) == (row.status, row.attempts, row.body_removed_at)]
    noted = list(stored) if is_done else unchanged
    await batch.note_history(connection, [(id_, now, actor, action, outcome, "") for id_ in noted])
    await connection.execute(
        update(dead_letters)
        .where(_c.id.in_(unchanged))
        .values(status=status, resolved_at=None if status is Status.OPEN else now)
    )
    return unchanged


async def write_history(
    connection: AsyncConnection, entries: Iterable[tuple[int, documents.DeadLetterEntry]]
) -> None:
    """Write entries of dead letters' histories (id, entry), each as it is."""
    rows = [{"dead_letter_id": id_, **entry.model_dump()} for id_, entry in entries]
    if rows:
        await connection.execute(insert(dead_letter_history), rows)


async def parked_and_registered(
    connection: AsyncConnection, after: int, limit: int
) -> tuple[int | None, Sequence[UUID]]:
    """Look at the next `limit` parked reports after an id: the last one's id, and which ones' device operations
    are registered. The id is None if there are no more.
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
    """The reports that wait for a registration, by operation: those of the operations that wait longest.

    What was received before a time is stale.
    """
    group = _parked(stale_before, operation_id).subquery()
    rows = await connection.execute(select(group).order_by(group.c.oldest, group.c.operation_id).limit(limit))
    return [documents.Parked(*row) for row in rows]


async def backlog(connection: AsyncConnection, stale_before: datetime) -> documents.Backlog:
    """All reports that wait for a registration."""
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
    """The message of a stored dead letter, to be parsed and processed again."""
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
