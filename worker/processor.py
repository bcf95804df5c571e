"""The heart: one batch, one transaction, and every effect of each message or none.

Why it is fast: the statements are set-based and their number does not grow with the batch. What the
batch touches is read once; every report is decided in memory, a device operation's second report from
the result of its first; what changed is written once. The rows of operations, which all workers share,
are locked last and for the shortest time.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters, State, operation_state
from worker.contract import Announcement
from worker.dead_letters import DeadLetter, stored_message
from worker.ledger import DeviceOperation, Ledger
from worker.messages import Announced, Incoming, Item, Key, device_operation_id, parse
from worker.outcomes import Status, Tally
from worker.store import batch as store
from worker.store.batch import StoredOperation
from worker.store.database import Database

Claims = dict[UUID, tuple[UUID, UUID, datetime]]
"""Device operations that a batch is about: id to operation, device and time of registration, if it registers."""


class _Unregistered(Exception):
    """A device operation that was to be held is not registered."""


async def process_batch(database: Database, items: Sequence[Item]) -> Tally:
    """Process items in their order, in one transaction, and say what became of them.

    Raises what the database raises; then nothing has happened.
    """
    claims, registering = _claims(items)
    if not registering:
        # Most batches are about registered device operations only: holding those costs half of claiming them.
        with suppress(_Unregistered):
            return await _process(database, items, claims, registering, claiming=False)
    return await _process(database, items, claims, registering, claiming=True)


async def _process(
    database: Database, items: Sequence[Item], claims: Claims, registering: set[UUID], *, claiming: bool
) -> Tally:
    now = datetime.now(UTC)
    async with database.write() as connection:
        missing = _operations_to_create(items)
        created = await store.create_operations(connection, missing)
        new_announcements = await store.take_announcements(connection, _announcement_keys(items))
        inserted: set[UUID] = set()
        if claiming:
            inserted = await store.claim(connection, [(id_, *claim, now) for id_, claim in claims.items()])
        held = await _held(connection, claims, inserted)
        if not claiming and len(held) < len(claims):
            raise _Unregistered
        operation_ids = {operation_id for operation_id, _, _ in claims.values()} | missing.keys()
        ledger = Ledger(
            operation_types=await store.operation_types(connection, operation_ids),
            new_announcements=new_announcements,
            held=held,
            seen=await store.seen(connection, [item.key for item in items if isinstance(item, Incoming)]),
            waiting=await _waiting(connection, inserted & registering),
        )
        for item in items:
            ledger.take(item)
        await _write(connection, ledger, inserted, created, now)
    return ledger.tally


def _claims(items: Iterable[Item]) -> tuple[Claims, set[UUID]]:
    """The device operations that the items are about, and which of them the items may register."""
    claims: Claims = {}
    registering: set[UUID] = set()
    for item in items:
        if isinstance(item, Incoming):
            id_, report = item.key[0], item.report
            if report.state is State.CREATED:
                if id_ not in registering:
                    registering.add(id_)
                    claims[id_] = (report.operation_id, report.device_id, item.at)
            elif id_ not in claims:
                claims[id_] = (report.operation_id, report.device_id, item.at)
        elif isinstance(item, Announced):
            operation_id = item.announcement.id
            for device_id in item.announcement.device_ids or ():
                id_ = device_operation_id(operation_id, device_id)
                if id_ not in registering:
                    registering.add(id_)
                    claims[id_] = (operation_id, device_id, item.at)
    return claims, registering


def _operations_to_create(items: Iterable[Item]) -> dict[UUID, datetime]:
    """The operations that the items create if they are unknown, and when."""
    missing: dict[UUID, datetime] = {}
    for item in items:
        if isinstance(item, Announced):
            missing.setdefault(item.announcement.id, item.at)
        elif isinstance(item, Incoming) and item.report.state is State.CREATED:
            missing.setdefault(item.report.operation_id, item.at)
    return missing


def _announcement_keys(items: Iterable[Item]) -> set[Key]:
    return {item.key for item in items if isinstance(item, Announced) and item.key is not None}


async def _held(connection: AsyncConnection, claims: Claims, inserted: set[UUID]) -> dict[UUID, DeviceOperation]:
    """The claimed device operations that were registered before."""
    rows = await store.hold(connection, claims.keys() - inserted)
    return {
        id_: DeviceOperation(claims[id_][0], state, dispatched, stored=(state, dispatched), is_new=False)
        for id_, state, dispatched in rows
    }


async def _waiting(connection: AsyncConnection, ids: set[UUID]) -> defaultdict[UUID, list[DeadLetter]]:
    """The stored reports that wait for registrations of this batch."""
    waiting: defaultdict[UUID, list[DeadLetter]] = defaultdict(list)
    for row in await store.parked(connection, ids):
        message = stored_message(row)
        [item] = parse(message)
        assert isinstance(item, Incoming), "only a readable report is ever parked"
        waiting[item.key[0]].append(DeadLetter(row.reason, row.detail, message, item))
    return waiting


async def _write(
    connection: AsyncConnection, ledger: Ledger, inserted: set[UUID], created: set[UUID], now: datetime
) -> None:
    """Write what the ledger holds, in the order of locks that `worker.store.batch` explains."""
    deltas = ledger.deltas()
    await store.withdraw(
        connection,
        device_operations=inserted - ledger.held.keys(),
        created_operations=created - deltas.keys() - ledger.announced.keys(),
    )
    await store.move(
        connection,
        [(id_, held.state, held.dispatched, held.reason) for id_, held in ledger.moved()],
        now,
    )
    await store.record(connection, ledger.activity)
    await _write_dead_letters(connection, ledger, now)
    await _write_operations(connection, ledger, deltas, now)


async def _write_dead_letters(connection: AsyncConnection, ledger: Ledger, now: datetime) -> None:
    new = [letter for letter in ledger.dead_letters if letter.message.dead_letter_id is None]
    kept = await store.keep_dead_letters(connection, [letter.row(now) for letter in new])
    ledger.count_as_duplicates(kept)
    await store.settle_dead_letters(
        connection,
        [
            (
                letter.message.dead_letter_id,
                letter.reason,
                letter.detail,
                letter.status,
                None if letter.status is Status.OPEN else now,
            )
            for letter in ledger.dead_letters
            if letter.message.dead_letter_id is not None
        ],
    )


async def _write_operations(
    connection: AsyncConnection, ledger: Ledger, deltas: Mapping[UUID, Counters], now: datetime
) -> None:
    touched = deltas.keys() | ledger.announced.keys() | ledger.named
    before = await store.lock_operations(connection, touched)
    after = {
        id_: _after(
            operation, deltas.get(id_, Counters()), ledger.operation_types[id_], ledger.announced.get(id_, ())
        )
        for id_, operation in before.items()
    }
    await store.count(connection, after, now)
    await store.describe(connection, ledger.announced)
    await store.note_states(
        connection, [(id_, new.state, now) for id_, new in after.items() if new.state != before[id_].state]
    )


def _after(
    before: StoredOperation, delta: Counters, batch_type: str | None, announcements: Sequence[Announcement]
) -> StoredOperation:
    """An operation after the batch. An announcement's type wins; a report's only names what has none."""
    expected = before.expected
    for announcement in announcements:
        if announcement.device_count is not None:
            expected = announcement.device_count
        elif expected is None and announcement.device_ids is not None:
            expected = len(set(announcement.device_ids))
    counters = before.counters.plus(delta)
    return StoredOperation(
        operation_type=batch_type if announcements else before.operation_type or batch_type,
        state=operation_state(counters, expected),
        expected=expected,
        counters=counters,
    )
