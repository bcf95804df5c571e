"""One batch, one transaction: load, decide, write. Every effect of each message is committed, or none.

The statements are set-based and their number does not grow with the batch: what the batch touches is read once,
every report is decided in memory, and what changed is written once. The rows of operations, which all workers
share, are locked last and for the shortest time.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import perf_counter
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters
from worker import spans
from worker.config.reporters import Reporters
from worker.model.causes import Group, GroupKey
from worker.model.changes import Told, told
from worker.model.messages import Item
from worker.model.outcomes import EXAMPLES, Status, Tally
from worker.model.timing import effective, moment
from worker.processing import batch_log, changes
from worker.processing.backlog import ParkedReport
from worker.processing.batch_keys import BatchKeys
from worker.processing.decider import Decider
from worker.processing.decisions import Answer, Decisions, Outcome, operation_after, tasks_after
from worker.processing.loading import Overtaken, load, load_parked
from worker.store import batch as store
from worker.store import dead_letter_batch, outbox
from worker.store.database import Database
from worker.store.rows import HistoryEntry, SettledDeadLetter

TURN = 500
"""Items that are decided before the event loop gets a turn: some ten milliseconds."""


async def process_batch(
    database: Database,
    items: Sequence[Item],
    reporters: Reporters | None = None,
    actor: str | None = None,
    *,
    releases_parked: bool = True,
    answers: list[Answer] | None = None,
) -> Tally:
    """Process items in their order, in one transaction.

    `reporters` says who may report, None for everyone; `actor` who has dead letters processed again, None for the
    worker itself. `releases_parked` is whether registrations release parked reports; if not, `release` has to.
    `answers` receives the results for senders who wait. Raises TooLarge if the items take more than one
    transaction, and the database's errors; then nothing has happened.
    """
    keys = BatchKeys.of(items)
    while True:
        with suppress(Overtaken):  # the other transaction has committed, so that a new try finds its rows
            decisions = await _process_once(database, items, keys, reporters, actor, releases_parked)
            if answers is not None:
                answers += decisions.answers
            return decisions.tally


async def release(
    database: Database,
    found: Sequence[ParkedReport],
    reporters: Reporters | None = None,
    actor: str | None = None,
    *,
    refused: str | None = None,
) -> Tally:
    """Process parked reports whose device operations are registered, in one transaction, if they are still parked.

    `refused` is the error of a database that does not store them. Raises the database's errors.
    """
    now = datetime.now(UTC)
    with spans.span("transaction"):
        async with database.write() as connection:
            known, letters = await load_parked(connection, found)
            decider = Decider(known, reporters, int(now.timestamp()))
            for letter in letters:
                if letter.report is not None and letter.report.key[0] in known.registered:
                    if refused is None:
                        decider.release(letter)
                    else:
                        decider.refuse(letter, refused)
            await write(connection, decider.decisions, now, actor)
    return decider.decisions.tally


async def process_within(
    connection: AsyncConnection, items: Sequence[Item], reporters: Reporters | None = None
) -> Tally:
    """Process items as `process_batch` does, in the caller's transaction."""
    now = datetime.now(UTC)
    known = await load(connection, BatchKeys.of(items), now, releases_parked=True)
    decisions = await decide(items, Decider(known, reporters, int(now.timestamp())))
    await write(connection, decisions, now, None)
    return decisions.tally


async def _process_once(
    database: Database,
    items: Sequence[Item],
    keys: BatchKeys,
    reporters: Reporters | None,
    actor: str | None,
    releases_parked: bool,
) -> Decisions:
    now, began = datetime.now(UTC), perf_counter()
    with spans.span("transaction"):
        async with database.write(is_batch=True) as connection:
            with spans.span("load"):
                known = await load(connection, keys, now, releases_parked=releases_parked)
            with spans.span("decide"):
                decider = Decider(known, reporters, int(now.timestamp()), releases_parked)
                decisions = await decide(items, decider)
            with spans.span("write"):
                await write(connection, decisions, now, actor)
                if not keys.claims:  # otherwise rows are locked, which is a write to PostgreSQL
                    await store.wait_for_standbys(connection)
    batch_log.log_batch(items, keys, decisions.tally, perf_counter() - began)
    return decisions


async def decide(items: Sequence[Item], decider: Decider) -> Decisions:
    """Decide items one after another; of many, the event loop gets a turn after each `TURN`."""
    for start in range(0, len(items), TURN):
        if start:
            await asyncio.sleep(0)
        for item in items[start : start + TURN]:
            decider.take(item)
    return decider.decisions


async def write(connection: AsyncConnection, decisions: Decisions, now: datetime, actor: str | None) -> None:
    """Write decisions; `actor` is as for `process_batch`."""
    decisions.finish()
    await write_registrations(connection, decisions)
    await write_dead_letters(connection, decisions, now, actor)
    counters, moved = decisions.counter_changes(), changes.moved_devices(decisions)
    await write_operations(connection, decisions, counters, decisions.group_changes(), moved, now)


async def write_registrations(connection: AsyncConnection, decisions: Decisions) -> None:
    """Remove what loading has inserted and no decision uses; note announcements that begin."""
    await store.withdraw(
        connection,
        device_operations=decisions.unused_device_operations(),
        created_operations=decisions.unused_operations(),
        announcements=decisions.known.new_announcements | decisions.ended,
    )
    await store.take_announcements(connection, decisions.beginning)


async def write_dead_letters(
    connection: AsyncConnection, decisions: Decisions, now: datetime, actor: str | None
) -> None:
    """Stored ones first: one that gives up its identity makes room for a new one."""
    await dead_letter_batch.note_history(
        connection,
        [
            HistoryEntry(id_, now, actor, action, *_described(outcome))
            for id_, action, outcome in decisions.history
        ],
    )
    await dead_letter_batch.settle(
        connection,
        [_settled(id_, outcome, now) for id_, outcome in decisions.outcomes.items()],
    )
    rows = [letter.row(now) for letter in decisions.dead_letters]
    kept = await dead_letter_batch.keep(connection, rows)
    again = {row["fingerprint"] for row in rows} - kept.keys()
    services = {row["fingerprint"]: row["service_id"] or "" for row in rows}
    decisions.count_unidentified(kept, await dead_letter_batch.discarded(connection, again), services)
    new = [
        (letter, row)
        for letter, row in zip(decisions.dead_letters, rows, strict=True)
        if letter.status is Status.OPEN and row["fingerprint"] in kept
    ]
    decisions.tally.examples = [letter.example(kept[row["fingerprint"]]) for letter, row in new[:EXAMPLES]]
    added = [(kept[row["fingerprint"]], row) for _, row in new]
    await outbox.tell(connection, changes.of_dead_letters(added, now))


def _described(outcome: Outcome) -> tuple[str, str]:
    return (outcome, "") if isinstance(outcome, str) else (outcome.reason, outcome.detail)


def _settled(id_: int, outcome: Outcome, now: datetime) -> SettledDeadLetter:
    if isinstance(outcome, str):
        return SettledDeadLetter(id_, Status.RESOLVED, now)
    return SettledDeadLetter(
        id_,
        Status.OPEN,
        None,
        outcome.reason,
        outcome.detail,
        fingerprint=outcome.fingerprint,
        spare=uuid4(),
        **outcome.about(),  # type: ignore[arg-type]  # the columns of the report, of their types
    )


async def write_operations(
    connection: AsyncConnection,
    decisions: Decisions,
    counters: Mapping[UUID, Counters],
    groups: Mapping[GroupKey, Group],
    moved_devices: changes.MovedByOperation,
    now: datetime,
) -> None:
    """Write device operations and the history, add to counters and groups, and write what follows from them."""
    moved = [
        (
            id_,
            tracked.state,
            tracked.dispatched,
            tracked.reason,
            tracked.code,
            tracked.service_id,
            tracked.cause,
            tracked.state_times,
            tracked.expires_at,
            None if tracked.is_reported else True,
        )
        for id_, tracked in decisions.changed
    ]
    touched = counters.keys() | decisions.announced.keys() | decisions.named | moved_devices.keys()
    counted = {id_: counters.get(id_, Counters()) for id_ in touched}
    is_told = told() is not Told.NONE
    before = await store.write(
        connection, moved, decisions.activity, counted, now, decisions.known.clock, is_told=is_told
    )
    known, announced = decisions.known, decisions.announced
    at = moment(known.clock) if known.clock else now
    after = {
        id_: operation_after(operation, known.operation_types.get(id_), announced.get(id_, ()), at)
        for id_, operation in before.items()
    }
    # Another transaction may have announced other timeouts since they were read. It has found the rows that were
    # there, but not those that this one has inserted.
    outdated = {
        id_ for id_, new in after.items() if effective(new.timing, new.operation_type) != known.timeouts(id_)
    }
    if outdated:
        await store.arm(connection, decisions.armed_with(after, outdated))
    aborted = [(id_, new.reason) for id_, new in after.items() if new.reason is not None]
    decisions.tally.aborts += len(aborted)
    decisions.tally.aborted += aborted
    await store.describe(connection, announced)
    await store.set_operations(
        connection,
        {id_: new for id_, new in after.items() if new != before[id_]},
        [(id_, new.state, now) for id_, new in after.items() if new.state != before[id_].state],
        [
            (id_, task)
            for id_, new in after.items()
            for task in tasks_after(before[id_], new, is_created=id_ in known.created_operations)
        ],
        groups,
    )
    await outbox.tell(connection, list(changes.of_operations(before, after, moved_devices, at)))
