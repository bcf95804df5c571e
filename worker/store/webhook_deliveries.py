"""What is owed to webhooks: written once from the log, leased for an attempt, removed when it is settled."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, case, delete, func, insert, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.changes import ChangeType
from worker.store.tables import changes, webhook_deliveries, webhooks
from worker.store.webhooks import clock


class Delivery(NamedTuple):
    """A change that is owed to a webhook, leased for an attempt."""

    webhook: str
    position: int
    id: UUID
    type: str
    payload: str
    recorded_at: int
    """In milliseconds since 1970."""
    attempts: int
    """Attempts that failed."""
    lease: UUID


class Owed(NamedTuple):
    """What is owed to a webhook."""

    number: int
    age: int
    """Milliseconds since the oldest of it was written."""


class Condition(NamedTuple):
    """How a webhook does."""

    failures: int
    """Since the last success."""
    is_resting: bool
    """Whether a failure was a moment ago."""


_delivery = webhook_deliveries.c
_COPIED = ("position", "id", "type", "payload", "recorded_at")


async def owe(connection: AsyncConnection, after: int, last: int) -> int:
    """Owe the changes of a range of the log to each webhook that takes their type; returns how many deliveries.

    Again for the same range does nothing. To a webhook that is off nothing is owed.
    """
    column = webhooks.c
    await connection.execute(select(column.name).order_by(column.name).with_for_update())
    takes = literal(" ").concat(column.types).concat(" ").contains(literal(" ").concat(changes.c.type).concat(" "))
    owed = (
        select(column.name, *(changes.c[name] for name in _COPIED), clock(connection))
        .select_from(changes.join(webhooks, changes.c.position > column.position))
        .where(changes.c.position > after, changes.c.position <= last, column.off_at.is_(None), takes)
    )
    adding = insert(webhook_deliveries).from_select(["webhook", *_COPIED, "due_at"], owed)
    count = (await connection.execute(adding)).rowcount
    await connection.execute(update(webhooks).where(column.position < last).values(position=last))
    return count


async def due(connection: AsyncConnection, names: Collection[str]) -> Sequence[str]:
    """Those of some webhooks to which something can be sent now."""
    column, now = webhooks.c, clock(connection)
    is_due = select(_delivery.position).where(_delivery.webhook == column.name, _delivery.due_at <= now).exists()
    query = select(column.name).where(
        column.name.in_(names), column.off_at.is_(None), column.resumes_at <= now, is_due
    )
    return (await connection.execute(query)).scalars().all()


async def lease(
    connection: AsyncConnection, name: str, lease_id: UUID, milliseconds: int, most: int, at_once: int
) -> Sequence[Delivery]:
    """Lease deliveries of a webhook for so long: those that are due longest, at most `most`.

    All workers together make `at_once` attempts at a time, and one while the webhook fails. What is leased is due
    again when the lease ends: its worker has died.
    """
    column, now = webhooks.c, clock(connection)
    query = select(column.failures, column.off_at, column.resumes_at <= now).where(column.name == name)
    row = (await connection.execute(query.with_for_update(skip_locked=True))).one_or_none()
    if row is None or row.off_at is not None or not row[2]:
        return ()
    leased = select(func.count()).where(
        _delivery.webhook == name, _delivery.lease.is_not(None), _delivery.due_at > now
    )
    allowed = (1 if row.failures else at_once) - (await connection.execute(leased)).scalar_one()
    if allowed <= 0:
        return ()
    longest = (
        select(_delivery.position)
        .where(_delivery.webhook == name, _delivery.due_at <= now)
        .order_by(_delivery.due_at, _delivery.position)
        .limit(min(most, allowed))
        .with_for_update(skip_locked=True)
    )
    leasing = (
        update(webhook_deliveries)
        .where(_delivery.webhook == name, _delivery.position.in_(longest))
        .values(lease=lease_id, due_at=now + milliseconds)
        .returning(*(_delivery[field] for field in Delivery._fields))
    )
    return sorted((Delivery(*row) for row in await connection.execute(leasing)), key=lambda each: each.position)


async def lock(connection: AsyncConnection, name: str) -> Condition:
    """Lock a webhook, for what came of its attempts; returns how it did before."""
    column = webhooks.c
    query = select(column.failures, column.resumes_at > clock(connection)).where(column.name == name)
    return Condition(*((await connection.execute(query.with_for_update())).one_or_none() or (0, False)))


async def delivered(
    connection: AsyncConnection, name: str, deliveries: Collection[Delivery], status: int | None
) -> Collection[int]:
    """Remove deliveries of a webhook that have succeeded; returns positions of those that were leased still."""
    leased = [(each.position, each.lease) for each in deliveries]
    removing = delete(webhook_deliveries).where(
        _delivery.webhook == name, tuple_(_delivery.position, _delivery.lease).in_(leased)
    )
    found = set((await connection.execute(removing.returning(_delivery.position))).scalars())
    if not found:
        return found
    values = {"failures": 0, "resumes_at": 0, "succeeded_at": clock(connection), "success_status": status}
    await connection.execute(update(webhooks).where(webhooks.c.name == name).values(values))
    return found


async def failed(
    connection: AsyncConnection, delivery: Delivery, status: int | None, why: str, pause: int | None, rest: int
) -> bool:
    """Have a delivery that has failed attempted again after `pause` milliseconds, or give it up (None).

    None of the webhook is attempted for `rest` milliseconds. Those that fail while it rests were begun before, and
    count as one failure. Returns whether the delivery was leased still.
    """
    column, now = webhooks.c, clock(connection)
    settling = (
        delete(webhook_deliveries).where(*_is(delivery))
        if pause is None
        else update(webhook_deliveries)
        .where(*_is(delivery))
        .values(attempts=_delivery.attempts + 1, due_at=now + pause, lease=None)
    )
    if not (await connection.execute(settling)).rowcount:
        return False
    values = {
        "failures": case((column.resumes_at > now, column.failures), else_=column.failures + 1),
        "resumes_at": case((column.resumes_at > now + rest, column.resumes_at), else_=now + rest),
        "failed_at": now,
        "failure_status": status,
        "failure": why,
        "given_up": column.given_up + int(pause is None),
    }
    await connection.execute(update(webhooks).where(column.name == delivery.webhook).values(values))
    return True


async def switched_off(connection: AsyncConnection, delivery: Delivery, status: int, why: str) -> bool:
    """Switch a webhook off, whose receiver asks for it; returns whether it was on. What is owed to it stays."""
    await release(connection, delivery)
    off = (
        update(webhooks)
        .where(webhooks.c.name == delivery.webhook, webhooks.c.off_at.is_(None))
        .values(
            off_at=clock(connection),
            failures=webhooks.c.failures + 1,
            failed_at=clock(connection),
            failure_status=status,
            failure=why,
        )
    )
    return bool((await connection.execute(off)).rowcount)


async def release(connection: AsyncConnection, delivery: Delivery) -> None:
    """Let any worker make the attempt that was not made."""
    releasing = update(webhook_deliveries).where(*_is(delivery))
    await connection.execute(releasing.values(lease=None, due_at=clock(connection)))


async def owed(connection: AsyncConnection) -> Mapping[str, Owed]:
    """What is owed to each webhook; costs as much as there is."""
    query = select(_delivery.webhook, func.count(), func.min(_delivery.recorded_at), clock(connection))
    rows = await connection.execute(query.group_by(_delivery.webhook))
    return {name: Owed(number, max(now - oldest, 0)) for name, number, oldest, now in rows}


async def drop(connection: AsyncConnection, name: str, limit: int, size: int) -> int:
    """Remove a webhook's oldest deliveries beyond a limit, those of device operations first; at most `size`."""
    await lock(connection, name)  # before it is counted, as other workers do the same
    count = (await connection.execute(select(func.count()).where(_delivery.webhook == name))).scalar_one()
    if count <= limit:
        return 0
    rank = case((_delivery.type == ChangeType.DEVICE_OPERATIONS_CHANGED.value, 0), else_=1)
    oldest = select(_delivery.position).where(_delivery.webhook == name).order_by(rank, _delivery.position)
    dropped = await _remove(connection, name, oldest.limit(min(count - limit, size)))
    counting = update(webhooks).where(webhooks.c.name == name)
    await connection.execute(counting.values(dropped=webhooks.c.dropped + dropped))
    return dropped


async def give_up(connection: AsyncConnection, name: str, age: int, size: int) -> int:
    """Remove deliveries older than `age` milliseconds of a webhook that fails or is off; at most `size`."""
    column = webhooks.c
    query = select((column.failures > 0) | column.off_at.is_not(None)).where(column.name == name)
    if not (await connection.execute(query.with_for_update())).scalar_one_or_none():
        return 0
    oldest = select(_delivery.position).where(
        _delivery.webhook == name, _delivery.recorded_at < clock(connection) - age
    )
    number = await _remove(connection, name, oldest.order_by(_delivery.position).limit(size))
    counting = update(webhooks).where(column.name == name)
    await connection.execute(counting.values(given_up=column.given_up + number))
    return number


async def _remove(connection: AsyncConnection, name: str, positions: Select[tuple[int]]) -> int:
    removing = delete(webhook_deliveries).where(_delivery.webhook == name, _delivery.position.in_(positions))
    return (await connection.execute(removing)).rowcount


def _is(delivery: Delivery) -> Sequence[ColumnElement[bool]]:
    """Which delivery it is, and that its lease is not another attempt's by now."""
    return (
        _delivery.webhook == delivery.webhook,
        _delivery.position == delivery.position,
        _delivery.lease == delivery.lease,
    )
