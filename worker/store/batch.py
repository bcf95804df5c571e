"""What a batch reads and writes, in the order in which the processor does it.

Every transaction takes its locks in this order too: operations that it creates, device operations that exist,
those that it inserts, dead letters, operations that it counts for, each by id. So no two transactions can
deadlock. What another one has inserted meanwhile is out of that order, so it is held without waiting for it.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters, State
from worker.model.contract import Announcement
from worker.model.messages import Key
from worker.model.operation import StoredOperation
from worker.model.outcomes import Action, Status
from worker.store import statements as sql
from worker.store.bulk import run_together
from worker.store.tables import dead_letters

Held = tuple[UUID, State, bool, str]
"""What the processor needs of a device operation: its id, state, whether it is dispatched, and what it reached."""


_STATES = {state.value: state for state in State}
"""By code: a call of the type takes ten times as long."""


async def create_operations(connection: AsyncConnection, missing: Mapping[UUID, datetime]) -> set[UUID]:
    """Create those of the operations (id: created at) that do not exist, and return them.

    Waits for another worker that is creating one of them. What the batch does not use, it must `withdraw`.
    """
    return {id_ for (id_,) in await sql.CREATE_OPERATIONS.run(connection, list(missing.items()))}


async def take_announcements(connection: AsyncConnection, keys: Collection[Key]) -> set[Key]:
    """Remember announcements (operation, message id), and return those that did not come before."""
    return {(row[0], row[1]) for row in await sql.TAKE_ANNOUNCEMENTS.run(connection, list(keys))}


async def claim(
    connection: AsyncConnection, rows: Collection[tuple[UUID, UUID, UUID, datetime, str]], now: datetime
) -> set[UUID]:
    """Insert device operations (id, operation, device, created at, reached); returns those that did not exist.

    So nobody else registers or parks for the same pair until the commit; who is doing that already is waited for.
    What the batch does not register after all, it must `withdraw`.
    """
    return {id_ for (id_,) in await sql.CLAIM.run(connection, list(rows), updated_at=now)}


async def hold(connection: AsyncConnection, ids: Collection[UUID]) -> Iterable[Held]:
    """Lock the registered ones among device operations until the commit, and give what is stored of them."""
    return _states(await sql.HOLD.run(connection, [(id_,) for id_ in ids]))


async def hold_free(connection: AsyncConnection, ids: Collection[UUID]) -> Iterable[Held]:
    """What `hold` gives, of those that nobody else holds: this waits for nobody."""
    return _states(await sql.HOLD_FREE.run(connection, [(id_,) for id_ in ids]))


async def announced_before(connection: AsyncConnection, keys: Collection[Key]) -> set[Key]:
    """Which of the announcements (operation, message id) came before."""
    return {(row[0], row[1]) for row in await sql.ANNOUNCED.run(connection, list(keys))}


async def look(connection: AsyncConnection, ids: Collection[UUID]) -> Iterable[Held]:
    """What `hold` gives, without the lock."""
    return _states(await sql.LOOK.run(connection, [(id_,) for id_ in ids]))


class Known(NamedTuple):
    """What is known of a batch's reports and operations."""

    accepted: dict[Key, State]
    """The reports that were accepted before, and the states that they named."""
    kept: dict[Key, int]
    """Those that were kept as dead letters, with those's ids."""
    operation_types: dict[UUID, str | None]
    """Of the operations that exist."""
    discarded: set[Key]
    """Those of the reports kept as dead letters that are discarded."""


async def known(connection: AsyncConnection, reports: Collection[Key], operations: Collection[UUID]) -> Known:
    """Read what came before of reports, and operations; once the claim has waited for other workers."""
    found = Known({}, {}, {}, set())
    asked = [*reports, *((id_, None) for id_ in operations)]
    for id_, report_id, dead_letter_id, operation_type, state in await sql.KNOWN.run(connection, asked):
        if report_id is None:
            found.operation_types[id_] = operation_type
        elif dead_letter_id is None:
            found.accepted[id_, report_id] = State(state)
        else:
            found.kept[id_, report_id] = dead_letter_id
            if state is not None:
                found.discarded.add((id_, report_id))
    return found


def _states(rows: Iterable[tuple[UUID, int, bool, str]]) -> Iterable[Held]:
    return ((id_, _STATES[state], dispatched, reached) for id_, state, dispatched, reached in rows)


async def kept_before(connection: AsyncConnection, fingerprints: Collection[UUID]) -> set[UUID]:
    """Which of the fingerprints are those of dead letters."""
    return {fingerprint for (fingerprint,) in await sql.KEPT.run(connection, [(each,) for each in fingerprints])}


async def discarded_before(connection: AsyncConnection, fingerprints: Collection[UUID]) -> set[UUID]:
    """Which of the fingerprints are those of dead letters that were discarded."""
    return {id_ for (id_,) in await sql.DISCARDED.run(connection, [(each,) for each in fingerprints])}


async def parked(connection: AsyncConnection, ids: Collection[UUID], limit: int) -> Sequence[Any]:
    """The open dead letters that wait for device operations' registration, `limit` at most, without their bodies.

    Rows of id, operation, device operation, size; by device operation, the oldest of each first.
    """
    return await sql.PARKED.run(connection, [(id_,) for id_ in ids], limit=limit)


async def weigh_parked(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, tuple[int, int]]:
    """How many open dead letters wait for each of device operations, if any do, and their bytes, about."""
    rows = await sql.WEIGH_PARKED.run(connection, [(id_,) for id_ in ids])
    return {id_: (reports, size) for id_, reports, size in rows}


async def read_parked(connection: AsyncConnection, dead_letter_ids: Collection[int]) -> Sequence[Any]:
    """Those of the dead letters that wait for a registration, the oldest first."""
    return await sql.READ_PARKED.run(connection, [(id_,) for id_ in dead_letter_ids])


async def lock_dead_letters(
    connection: AsyncConnection, ids: Collection[int]
) -> dict[int, tuple[Status, int, datetime | None]]:
    """Lock dead letters until the commit; gives what can have changed since they were read.

    That is where those that exist stand, their number of attempts, and when retention emptied them.
    """
    rows = await sql.LOCK_DEAD_LETTERS.run(connection, [(id_,) for id_ in ids])
    return {id_: (Status(status), attempts, body_removed_at) for id_, status, attempts, body_removed_at in rows}


async def withdraw(
    connection: AsyncConnection,
    device_operations: Collection[UUID],
    created_operations: Collection[UUID],
    announcements: Collection[Key],
) -> None:
    """Remove what was claimed, created and remembered in this transaction but not registered and taken."""
    await run_together(
        connection,
        (sql.WITHDRAW_DEVICE_OPERATIONS, [(id_,) for id_ in device_operations]),
        (sql.WITHDRAW_OPERATIONS, [(id_,) for id_ in created_operations]),
        (sql.WITHDRAW_ANNOUNCEMENTS, list(announcements)),
    )


async def keep_dead_letters(connection: AsyncConnection, rows: list[dict[str, Any]]) -> set[UUID]:
    """Write dead letters; returns the fingerprints of the new ones. The same message makes no second row.

    Their ids follow their order, which is that of arrival, so that parked reports are released in it. Only
    unreadable messages may meet the same ones of another worker: those come first, in an order of their own.
    """
    if not rows:
        return set()
    unreadable = [row for row in rows if row["device_operation_id"] is None]
    readable = [row for row in rows if row["device_operation_id"] is not None]
    ordered = sorted(unreadable, key=lambda row: row["fingerprint"]) + readable
    if connection.dialect.name == "postgresql":
        kept = await sql.KEEP.run(connection, [tuple(_columns(number, row)) for number, row in enumerate(ordered)])
        return {fingerprint for (fingerprint,) in kept}
    # SQLite has no way to put bytes into a document of rows.
    statement = sqlite.insert(dead_letters).on_conflict_do_nothing().returning(dead_letters.c.fingerprint)
    return set((await connection.execute(statement, ordered)).scalars())


def _columns(number: int, row: Mapping[str, Any]) -> Iterator[object]:
    """A dead letter for `KEEP`; what the row does not name is NULL."""
    yield number
    for name in list(sql.KEEP.rows)[1:]:
        yield _with_json(row.get(name))


async def settle_dead_letters(
    connection: AsyncConnection,
    rows: list[tuple[object, ...]],
) -> None:
    """Write what became of stored dead letters.

    The rows: id, status, resolved at, then reason, detail, fingerprint, a spare one, operation, device, service,
    device operation, report id; None leaves things as they are, but for an open one's device operation, by which
    it takes its report's place.
    """
    await sql.SETTLE.run(connection, rows)


async def note_history(
    connection: AsyncConnection, rows: list[tuple[int, datetime, str | None, Action, str, str]]
) -> None:
    """Write what was done with dead letters (id, at, actor, action, outcome, detail); before it is done.

    The first entry of all, how the dead letter was received, is read from its row as it then still is.
    """
    await sql.BEGIN_HISTORY.run(connection, [(id_,) for id_ in dict.fromkeys(row[0] for row in rows)])
    await sql.NOTE_HISTORY.run(connection, rows)


async def write(
    connection: AsyncConnection,
    moved: Sequence[tuple[UUID, State, bool, str | None, str]],
    history: Sequence[tuple[UUID, str, State, str, datetime, str, str, int, str | None]],
    deltas: Mapping[UUID, Counters],
    at: datetime,
) -> dict[UUID, StoredOperation]:
    """Write what reports did, and add to operations' counters; gives those operations, locked until the commit.

    `moved` are device operations' new states (id, state, dispatched, reason or None to keep it, reached), `at` is
    now, and `history` is what is new in it (device operation, report id, state, verdict, created at, service,
    reason, recorded at, note).
    """
    added = [(id_, *delta) for id_, delta in deltas.items()]
    runs = (sql.MOVE, moved), (sql.RECORD, history), (sql.COUNT, added)
    rows = await run_together(connection, *runs, updated_at=at)
    return {
        id_: StoredOperation(operation_type, state, expected, Counters(*counters))
        for id_, operation_type, state, expected, *counters, _ in rows
    }


async def set_operations(
    connection: AsyncConnection,
    changed: Mapping[UUID, StoredOperation],
    history: Sequence[tuple[UUID, str, datetime]],
) -> None:
    """Write operations' types, states and expected numbers of devices, and their history (id, new state, when)."""
    rows = [(id_, each.operation_type, each.state, each.expected) for id_, each in changed.items()]
    await run_together(connection, (sql.SET_OPERATIONS, rows), (sql.NOTE_STATES, history))


async def describe(connection: AsyncConnection, announced: Mapping[UUID, Sequence[Announcement]]) -> None:
    """Write what announcements say of operations: the last word on each field; what none names stays."""
    await sql.DESCRIBE.run(
        connection, [(id_, *_description(announcements)) for id_, announcements in announced.items()]
    )


def _description(announcements: Sequence[Announcement]) -> Iterator[object]:
    for name in list(sql.DESCRIBE.rows)[1:]:
        values = [getattr(announcement, name) for announcement in announcements]
        value = next((value for value in reversed(values) if value is not None), None)
        yield _with_json(value)


def _with_json(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict) else value
