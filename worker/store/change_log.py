"""The log of changes, in which each has a position, and the cursors of those who read it."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ScalarSelect,
    Uuid,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.changes import ChangeType
from worker.store.bulk import clock_of
from worker.store.outbox import LOG, NUMBERING
from worker.store.tables import change_cursors, changes, outbox

DROPPED = "dropped"
"""Name of the cursor that says where the last change was dropped."""
RELAY = "relay:"
"""Prefix of the name of the cursor of what is published; that of the topology follows."""
AT_WORK = 500
"""Changes after its cursor that a reader may be at work on."""
FORGOTTEN_AFTER = 30 * 86_400_000
"""Milliseconds after which a cursor that no process holds any more keeps no change from being removed."""


class LoggedChange(NamedTuple):
    """A change in the log."""

    position: int
    id: UUID
    type: str
    """A `ChangeType`, or one of a newer version of deviceops, as after going back to an older one."""
    aggregateid: str
    """The operation's id; of dead letters the reason."""
    payload: str
    routing_key: str
    sequence: int | None
    recorded_at: int
    """When it was written, by the database's clock in milliseconds since 1970."""


class Extent(NamedTuple):
    """What the log holds."""

    first: int
    """The position of the first change from which on all are kept, or the next one if none is."""
    last: int
    """That of the last one, kept or not; 0 if there never was one."""


class Outstanding(NamedTuple):
    """What a reader has not read yet."""

    number: int
    age: int | None
    """Milliseconds since the first of it was written; None if there is none."""
    dropped: int
    """Changes of device operations that were removed unread, ever."""


class Read(NamedTuple):
    """The last change that a reader is done with; position 0 if there is none."""

    position: int = 0
    id: UUID = UUID(int=0)


class Portion(NamedTuple):
    """What a reader reads at a time."""

    position: int
    """Where its cursor is."""
    changes: Sequence[LoggedChange]
    """The next ones."""
    is_behind: bool
    """Whether another process is numbering more just now."""


_COLUMNS = [changes.c[name] for name in LoggedChange._fields]
_NUMBERING = NUMBERING.format(
    condition="EXISTS (SELECT FROM log) AND EXISTS (SELECT FROM held)", last="(SELECT position FROM log)"
)
_READ_ON = text(
    f"""
    WITH log AS (
        SELECT position FROM change_cursors WHERE name = '{LOG}' FOR UPDATE SKIP LOCKED
    ), held AS (
        UPDATE change_cursors
        SET holder = :holder, held_until = {clock_of("postgresql")} + :milliseconds,
            position = CASE WHEN position < :read
                AND EXISTS (SELECT FROM changes WHERE changes.position = :read AND changes.id = :read_id)
                THEN :read ELSE position END
        WHERE name = :name AND (holder = :holder OR held_until < {clock_of("postgresql")})
        RETURNING position
    ), {_NUMBERING}
    SELECT held.position AS read, log.position AS last, {", ".join(f"added.{n}" for n in LoggedChange._fields)}
    FROM held LEFT JOIN log ON true LEFT JOIN added ON true ORDER BY added.position
    """
).bindparams(
    *(bindparam(n, type_=Uuid()) for n in ("holder", "read_id")),
    *(bindparam(n, type_=BigInteger()) for n in ("read", "milliseconds")),
)
"""In one statement what `hold`, `outbox.number` and `read_after` do: a round trip dominates the cost of each.

Its snapshot may be older than its lock: what another process has numbered meanwhile is gone from the outbox then,
and nothing that is in the snapshot comes before something of the same operation that is not.
"""


async def read_on(
    connection: AsyncConnection, name: str, holder: UUID, milliseconds: int, read: Read, limit: int
) -> Portion | None:
    """Hold a cursor as `hold` does, number what is committed, and read on; None if another process holds it."""
    last: int | None
    if connection.dialect.name == "postgresql":
        given = {"holder": holder, "milliseconds": milliseconds, "name": name, "limit": limit}
        given |= {"read": read.position, "read_id": read.id}
        rows = (await connection.execute(_READ_ON, given)).all()
        if not rows:
            return None
        position, last = rows[0][:2]
        if position == last:
            return Portion(
                position, [_logged(row[2:]) for row in rows if row.position is not None], is_behind=False
            )
    else:
        held = await hold(connection, name, holder, milliseconds, read)
        if held is None:
            return None
        position = last = held
    return Portion(position, await read_after(connection, position, limit), is_behind=last is None)


async def read_after(
    connection: AsyncConnection, position: int, limit: int, operation_id: UUID | None = None
) -> Sequence[LoggedChange]:
    """The changes after a position, in order; of one operation if it is given."""
    query = select(*_COLUMNS).where(changes.c.position > position).order_by(changes.c.position).limit(limit)
    if operation_id is not None:
        query = query.where(changes.c.aggregateid == str(operation_id))
    return [_logged(row) for row in await connection.execute(query)]


async def position_of(connection: AsyncConnection, operation_id: UUID, sequence: int) -> int:
    """The position after which an operation's changes have a higher sequence."""
    query = select(func.max(changes.c.position)).where(
        changes.c.aggregateid == str(operation_id), changes.c.sequence <= sequence
    )
    return (await connection.execute(query)).scalar_one() or 0


async def extent(connection: AsyncConnection) -> Extent:
    """What the log holds."""

    def cursor(name: str) -> ScalarSelect[int]:
        return select(change_cursors.c.position).where(change_cursors.c.name == name).scalar_subquery()

    query = select(func.min(changes.c.position), cursor(LOG), cursor(DROPPED))
    first, end, dropped = (await connection.execute(query)).one()
    return Extent(max(end + 1 if first is None else first, (dropped or 0) + 1), end)


async def begin(connection: AsyncConnection, name: str) -> None:
    """Create a reader's cursor at the beginning of the log, unless there is one."""
    has_cursor = select(change_cursors.c.name).where(change_cursors.c.name == name)
    if (await connection.execute(has_cursor)).first() is None:
        inserting = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        await connection.execute(inserting(change_cursors).values(name=name, position=0).on_conflict_do_nothing())


async def register(connection: AsyncConnection, name: str) -> None:
    """Note that a process wants to read on from a cursor, whether or not it can: what it has not read is kept."""
    await begin(connection, name)
    column, clock = change_cursors.c, literal_column(clock_of(connection.dialect.name), BigInteger)
    noting = update(change_cursors).where(column.name == name, column.held_until < clock - 1)
    await connection.execute(noting.values(held_until=clock - 1))


async def hold(connection: AsyncConnection, name: str, holder: UUID, milliseconds: int, read: Read) -> int | None:
    """Hold a cursor for some time, advance it to what was read, and return its position.

    None if another process holds it. Only one reads on at a time, as others would only do the same once more. It
    is not advanced to a position where another change is, as after a failover that has lost the last transactions.
    """
    column, clock = change_cursors.c, literal_column(clock_of(connection.dialect.name), BigInteger)
    is_there = select(changes.c.id).where(changes.c.position == read.position, changes.c.id == read.id).exists()
    holding = (
        update(change_cursors)
        .where(column.name == name, or_(column.holder == holder, column.held_until < clock))
        .values(
            holder=holder,
            held_until=clock + milliseconds,
            position=case(((column.position < read.position) & is_there, read.position), else_=column.position),
        )
        .returning(column.position)
    )
    position: int | None = (await connection.execute(holding)).scalar_one_or_none()
    return position


async def release(connection: AsyncConnection, name: str, holder: UUID, read: Read) -> None:
    """Advance a cursor to what was read, and let another process hold it, if it is still held."""
    if await hold(connection, name, holder, 0, read) is not None:
        await connection.execute(update(change_cursors).where(change_cursors.c.name == name).values(holder=None))


async def outstanding(connection: AsyncConnection, name: str) -> Outstanding:
    """What a reader has not read yet; costs as much as there is."""
    column, clock = change_cursors.c, literal_column(clock_of(connection.dialect.name), BigInteger)
    query = select(column.position, column.dropped, clock).where(column.name == name)
    position, dropped, now = (await connection.execute(query)).one_or_none() or (0, 0, 0)
    unread = select(func.count(), func.min(changes.c.recorded_at)).where(changes.c.position > position)
    count, oldest = (await connection.execute(unread)).one()
    unnumbered = select(func.count(), func.min(outbox.c.recorded_at))
    more, oldest_unnumbered = (await connection.execute(unnumbered)).one()
    ages = [each for each in (oldest, oldest_unnumbered) if each is not None]
    return Outstanding(count + more, max(now - min(ages), 0) if ages else None, dropped)


async def drop(connection: AsyncConnection, name: str, limit: int, size: int) -> int:
    """Remove the oldest changes of device operations of what a reader has not read, if it is more than a limit.

    At most `size`, and none of what the reader may be at work on. Changes of operations are never removed. Returns
    how many were.
    """
    column = changes.c
    locking = select(change_cursors.c.name).where(change_cursors.c.name == name).with_for_update()
    await connection.execute(locking)  # others would count what this one is about to remove
    cursors = select(change_cursors.c.position, change_cursors.c.name).where(
        change_cursors.c.name.in_([name, LOG])
    )
    positions = {found: position for position, found in await connection.execute(cursors)}
    after = positions.get(name, 0)
    if positions[LOG] - after <= limit:  # as many at most
        return 0
    count = (await connection.execute(select(func.count()).where(column.position > after))).scalar_one()
    if count <= limit:
        return 0
    oldest = (
        select(column.position)
        .where(column.position > after + AT_WORK, column.type == ChangeType.DEVICE_OPERATIONS_CHANGED.value)
        .order_by(column.position)
        .limit(min(count - limit, size))
    )
    dropping = delete(changes).where(column.position.in_(oldest)).returning(column.position)
    dropped = (await connection.execute(dropping)).scalars().all()
    if dropped:
        cursor = change_cursors.c
        counting = update(change_cursors).where(cursor.name == name).values(dropped=cursor.dropped + len(dropped))
        await connection.execute(counting)
        await begin(connection, DROPPED)
        marking = update(change_cursors).where(cursor.name == DROPPED, cursor.position < max(dropped))
        await connection.execute(marking.values(position=max(dropped)))
    return len(dropped)


async def remove_read(connection: AsyncConnection, keep: int, limit: int, size: int) -> int:
    """Remove changes that every reader has read and that are older than `keep` milliseconds, or not among the last
    `limit`; at most `size`. Returns how many were removed.

    None is removed after one that is kept, so that the first position says what is missing.
    """
    column, cursor = changes.c, change_cursors.c
    clock = literal_column(clock_of(connection.dialect.name), BigInteger)
    end, read, now = (
        await connection.execute(
            select(
                func.max(case((cursor.name == LOG, cursor.position))),
                func.min(
                    case(((cursor.name != LOG) & (cursor.held_until > clock - FORGOTTEN_AFTER), cursor.position))
                ),
                clock,
            )
        )
    ).one()
    first = select(column.position, column.recorded_at).order_by(column.position).limit(size).subquery().c
    is_old = or_(first.recorded_at < now - keep, first.position <= end - limit)
    may_go = is_old & (first.position <= (end if read is None else read))
    kept = select(func.coalesce(func.min(first.position), end + 1)).where(~may_go).scalar_subquery()
    removing = delete(changes).where(column.position.in_(select(first.position)), column.position < kept)
    return (await connection.execute(removing)).rowcount


def _logged(row: Sequence[Any]) -> LoggedChange:
    return LoggedChange(*row)
