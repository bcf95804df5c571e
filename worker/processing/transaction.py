"""The heart: one batch, one transaction, and every effect of each message or none.

Why it is fast: the statements are set-based and their number does not grow with the batch. What the
batch touches is read once; every report is decided in memory, a device operation's second report from
the result of its first; what changed is written once. The rows of operations, which all workers share,
are locked last and for the shortest time.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from time import perf_counter
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters, operation_state
from worker import spans
from worker.config.reporters import Trust
from worker.model.contract import Announcement
from worker.model.dead_letter import DeadLetter
from worker.model.messages import Incoming, Item
from worker.model.outcomes import EXAMPLES, Status, Tally
from worker.processing import batch_log
from worker.processing.backlog import Waiting, read, waiting_for
from worker.processing.decisions import Answer, Ledger, Outcome
from worker.processing.loading import Scope
from worker.store import batch as store
from worker.store.batch import StoredOperation
from worker.store.database import Database

TURN = 500
"""Items that are decided before others get a turn: they take some ten milliseconds."""


class _Overtaken(Exception):
    """Another transaction has registered meanwhile what this one was about to."""


async def process_batch(
    database: Database,
    items: Sequence[Item],
    trust: Trust | None = None,
    actor: str | None = None,
    *,
    takes_up: bool = True,
    answers: list[Answer] | None = None,
) -> Tally:
    """Process items in their order, in one transaction, and say what became of them.

    `trust` says who may report, None for anybody; `actor` who has dead letters processed again, None for the
    worker itself. `takes_up` is whether registrations take up what is parked; if not, `release` is to do that.
    `answers` gets what became of messages whose senders wait. Raises TooMuch if all of it is too much for one
    transaction, and what the database raises; then nothing has happened.
    """
    scope = Scope.of(items)
    while True:
        with suppress(_Overtaken):  # whoever overtook this one has committed: to begin again is enough
            ledger = await _process_once(database, items, scope, trust, actor, takes_up)
            if answers is not None:
                answers += ledger.answers
            return ledger.tally


async def release(
    database: Database,
    found: Sequence[Waiting],
    trust: Trust | None = None,
    actor: str | None = None,
    *,
    refused: str | None = None,
) -> Tally:
    """Take up those that are still parked of reports whose device operations are registered, in one transaction.

    `refused` is what is wrong with them if the database does not take them. Raises what the database raises.
    """
    now = datetime.now(UTC)
    with spans.span("transaction"):
        async with database.write() as connection:
            ledger = await _decide_waiting(connection, found, trust, refused, now)
            await _write_dead_letters(connection, ledger, now, actor)
            await _write(connection, ledger, ledger.deltas(), now)
    return ledger.tally


async def process_together(database: Database, batches: Iterable[Sequence[Incoming]]) -> Tally:
    """Process several batches of reports in one transaction: all of them have their effect, or none.

    The reports are about registered device operations, whose ids grow from each batch to the next, so that locks
    are taken in the order that all transactions keep. Raises what the database raises.
    """
    now = datetime.now(UTC)
    tally = Tally()
    deltas: defaultdict[UUID, Counters] = defaultdict(Counters)
    async with database.write() as connection:
        for items in batches:
            ledger = await _decide(connection, items, Scope.of(items), None, None, now, takes_up=False)
            await _write(connection, ledger, {}, now)
            tally.add(ledger.tally)
            for id_, delta in ledger.deltas().items():
                deltas[id_] = deltas[id_].plus(delta)
        await _write(connection, Ledger(), deltas, now)
    return tally


async def process_within(connection: AsyncConnection, items: Sequence[Item], trust: Trust | None = None) -> Tally:
    """Process items as `process_batch` does, in a transaction of the caller's."""
    now = datetime.now(UTC)
    ledger = await _decide(connection, items, Scope.of(items), trust, None, now, takes_up=True)
    await _write(connection, ledger, ledger.deltas(), now)
    return ledger.tally


async def _process_once(
    database: Database,
    items: Sequence[Item],
    scope: Scope,
    trust: Trust | None,
    actor: str | None,
    takes_up: bool,
) -> Ledger:
    now, began = datetime.now(UTC), perf_counter()
    with spans.span("transaction"):
        async with database.write() as connection:
            with spans.span("decide"):
                ledger = await _decide(connection, items, scope, trust, actor, now, takes_up=takes_up)
            with spans.span("write"):
                await _write(connection, ledger, ledger.deltas(), now)
    batch_log.tell(items, scope, ledger.tally, perf_counter() - began)
    return ledger


async def _decide(
    connection: AsyncConnection,
    items: Sequence[Item],
    scope: Scope,
    trust: Trust | None,
    actor: str | None,
    now: datetime,
    *,
    takes_up: bool,
) -> Ledger:
    """Decide items, and write what is no report's effect: dead letters, and what was claimed in vain."""
    created = await store.create_operations(connection, scope.creating)
    new_announcements = await store.take_announcements(connection, scope.announcements)
    begun = await store.announced_before(connection, scope.beginnings)
    held = scope.held(await store.hold(connection, scope.claims.keys()))
    missing = scope.claims.keys() - held.keys()
    inserted = await store.claim(connection, [(id_, *scope.claims[id_]) for id_ in missing], now)
    held |= scope.held(await store.hold_free(connection, missing - inserted))
    if len(held) + len(inserted) < len(scope.claims):
        raise _Overtaken
    # Also of what is registered: whoever did that may have died before everything was taken up.
    waiting = await waiting_for(connection, scope.registering if takes_up else ())
    parked = {letter.message.dead_letter_id or 0 for letters in waiting.values() for letter in letters}
    locked = await store.lock_dead_letters(connection, parked | scope.stored)
    stored = {id_: status for id_, (status, *_) in locked.items()}
    known = await store.known(connection, scope.reports, scope.operations)
    ledger = Ledger(
        operation_types=known.operation_types,
        new_announcements=new_announcements,
        begun=begun,
        held=held,
        seen=known.accepted,
        kept=known.kept,
        discarded=known.discarded,
        waiting=_still_waiting(waiting, stored, scope.stored),
        stored=stored,
        trust=trust,
        claims=scope.claims,
        now=int(now.timestamp()),
        takes_up=takes_up,
    )
    await take(ledger, items)
    used = {ledger.held[id_].operation_id for id_ in inserted & ledger.held.keys()} | ledger.announced.keys()
    await store.withdraw(
        connection,
        device_operations=inserted - ledger.held.keys(),
        created_operations=created - used,
        announcements=ledger.new_announcements | ledger.ended,
    )
    await store.take_announcements(connection, ledger.beginning)
    await _write_dead_letters(connection, ledger, now, actor)
    return ledger


async def take(ledger: Ledger, items: Sequence[Item]) -> None:
    """Decide items one after another; of many, others get their turns between some."""
    for start in range(0, len(items), TURN):
        if start:
            await asyncio.sleep(0)
        for item in items[start : start + TURN]:
            ledger.take(item)


async def _decide_waiting(
    connection: AsyncConnection,
    found: Sequence[Waiting],
    trust: Trust | None,
    refused: str | None,
    now: datetime,
) -> Ledger:
    """Decide parked reports of device operations that are registered, the oldest first."""
    scope = Scope.of_waiting(found)
    held = scope.held(await store.hold(connection, scope.claims.keys()))
    locked = await store.lock_dead_letters(connection, [each.id for each in found])
    letters = await read(connection, list(locked))
    keys = [letter.report.key for letter in letters if letter.report]
    before = await store.known(connection, keys, scope.operations)
    ledger = Ledger(
        operation_types=before.operation_types,
        held=held,
        seen=before.accepted,
        trust=trust,
        now=int(now.timestamp()),
    )
    for letter in letters:
        if letter.report is not None and letter.report.key[0] in held:
            if refused is None:
                ledger.release(letter)
            else:
                ledger.refuse(letter, refused)
    return ledger


def _still_waiting(
    waiting: Mapping[UUID, list[DeadLetter]], stored: Mapping[int, Status], replaying: Collection[int]
) -> defaultdict[UUID, list[DeadLetter]]:
    """Those that are open now that they are locked, without those that come as items of their own."""
    still: defaultdict[UUID, list[DeadLetter]] = defaultdict(list)
    for id_, letters in waiting.items():
        for letter in letters:
            number = letter.message.dead_letter_id or 0
            if stored.get(number) is Status.OPEN and number not in replaying:
                still[id_].append(letter)
    return still


async def _write_dead_letters(
    connection: AsyncConnection, ledger: Ledger, now: datetime, actor: str | None
) -> None:
    """Stored ones first: one that gives up its identity makes room for a new one."""
    await store.note_history(
        connection, [(id_, now, actor, action, *_told(outcome)) for id_, action, outcome in ledger.history]
    )
    await store.settle_dead_letters(
        connection,
        [(id_, *_settled(outcome, now)) for id_, outcome in ledger.outcomes.items()],
    )
    kept = await store.keep_dead_letters(connection, [letter.row(now) for letter in ledger.dead_letters])
    again = {letter.fingerprint for letter in ledger.dead_letters} - kept
    ledger.count_as_duplicates(kept, await store.discarded_before(connection, again))
    new = (each for each in ledger.dead_letters if each.status is Status.OPEN and each.fingerprint in kept)
    ledger.tally.examples = [letter.example() for letter in islice(new, EXAMPLES)]


def _told(outcome: Outcome) -> tuple[str, str]:
    return (outcome, "") if isinstance(outcome, str) else (outcome.reason, outcome.detail)


def _settled(outcome: Outcome, now: datetime) -> tuple[object, ...]:
    """What becomes of a row: status, resolved at, reason, detail, identity, and what it says of the report."""
    if isinstance(outcome, str):
        return Status.RESOLVED, now, *[None] * 9
    identity = outcome.fingerprint, uuid4()
    return Status.OPEN, None, outcome.reason, outcome.detail, *identity, *outcome.about().values()


async def _write(
    connection: AsyncConnection, ledger: Ledger, deltas: Mapping[UUID, Counters], now: datetime
) -> None:
    """Write what reports did to device operations, and then what that and announcements do to operations."""
    moved = [(id_, held.state, held.dispatched, held.reason, held.reached) for id_, held in ledger.moved()]
    touched = deltas.keys() | ledger.announced.keys() | ledger.named
    counted = {id_: deltas.get(id_, Counters()) for id_ in touched}
    before = await store.write(connection, moved, ledger.activity, counted, now)
    after = {
        id_: _after(operation, ledger.operation_types.get(id_), ledger.announced.get(id_, ()))
        for id_, operation in before.items()
    }
    await store.set_operations(
        connection,
        {id_: new for id_, new in after.items() if new != before[id_]},
        [(id_, new.state, now) for id_, new in after.items() if new.state != before[id_].state],
    )
    await store.describe(connection, ledger.announced)


def _after(
    before: StoredOperation, batch_type: str | None, announcements: Sequence[Announcement]
) -> StoredOperation:
    """An operation after the batch, which is counted already.

    An announcement's type wins; a report's only names what has none.
    """
    expected = before.expected
    for announcement in announcements:
        if announcement.device_count is not None:
            expected = announcement.device_count
        elif expected is None and announcement.device_ids is not None:
            expected = len(set(announcement.device_ids))
    return before._replace(
        operation_type=batch_type if announcements else before.operation_type or batch_type,
        state=operation_state(before.counters, expected),
        expected=expected,
    )
