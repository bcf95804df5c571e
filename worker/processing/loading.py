"""Loading: what a transaction reads and locks before it decides, in the order in which all transactions lock.

The order: operations that it creates, announcements, device operations that exist, device operations that it
inserts, dead letters; each by id. `worker.processing.transaction` locks the operations that it counts for last.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Timeouts, Times, expiry
from worker.model.dead_letter import DeadLetter
from worker.model.outcomes import Status
from worker.model.timing import Timing, effective
from worker.processing.backlog import ParkedReport, parked_for, read
from worker.processing.batch_keys import BatchKeys
from worker.processing.known import Claim, Known, TrackedDeviceOperation
from worker.store import batch as store
from worker.store import dead_letter_batch

_UNUSED = UUID(int=0), datetime.max.replace(tzinfo=UTC), "", None
"""The rest of a claim on a device operation that is registered."""


class Overtaken(Exception):
    """Another transaction has registered a device operation that this one was about to register."""


async def load(connection: AsyncConnection, keys: BatchKeys, now: datetime, *, releases_parked: bool) -> Known:
    """Read and lock everything that a batch touches, and insert the device operations that it may register.

    `releases_parked` is whether registrations release parked reports. Raises Overtaken, upon which the transaction
    is to start again, and TooLarge if more is parked than one transaction should release.
    """
    created = await store.create_operations(connection, keys.creating)
    new_announcements = await store.take_announcements(connection, keys.announcements)
    begun = await store.announced_before(connection, keys.beginnings)
    registered = _tracked(keys.claims, await store.lock(connection, keys.claims.keys()))
    missing = keys.claims.keys() - registered.keys()
    before = await store.read_operations(connection, keys.creating if missing & keys.registering else ())
    expiries = _expiries(keys, missing, before)
    rows = [(id_, *keys.claims[id_], expiries.get(id_)) for id_ in missing]
    inserted = await store.claim(connection, rows, now, before.clock)
    registered |= _tracked(keys.claims, await store.lock_skip_locked(connection, missing - inserted))
    if len(registered) + len(inserted) < len(keys.claims):
        raise Overtaken
    # Also of device operations that are registered: the worker that did may have died before it released them.
    parked = await parked_for(connection, keys.registering if releases_parked else ())
    ids = {letter.message.dead_letter_id or 0 for letters in parked.values() for letter in letters}
    locked = await dead_letter_batch.lock(connection, ids | keys.stored)
    stored = {id_: status for id_, (status, *_) in locked.items()}
    known = await store.read_known(connection, keys.reports, keys.operations - before.types.keys())
    return Known(
        operation_types=before.types | known.operations.types,
        timing=before.timing | known.operations.timing,
        clock=before.clock or known.operations.clock,
        new_announcements=new_announcements,
        begun=begun,
        registered=registered,
        accepted=known.accepted,
        kept=known.kept,
        discarded=known.discarded,
        parked=_still_parked(parked, stored, keys.stored),
        stored=stored,
        claims=keys.claims,
        expiries=expiries,
        inserted=inserted,
        created_operations=created,
    )


async def load_parked(
    connection: AsyncConnection, found: Sequence[ParkedReport]
) -> tuple[Known, list[DeadLetter]]:
    """Read and lock device operations and their parked reports; gives those still parked, the oldest first."""
    claims = {each.device_operation_id: (each.operation_id, *_UNUSED) for each in found}
    registered = _tracked(claims, await store.lock(connection, claims.keys()))
    locked = await dead_letter_batch.lock(connection, [each.id for each in found])
    letters = await read(connection, list(locked))
    keys = [letter.report.key for letter in letters if letter.report]
    before = await store.read_known(connection, keys, {each.operation_id for each in found})
    known = Known(
        operation_types=before.operations.types,
        timing=before.operations.timing,
        clock=before.operations.clock,
        registered=registered,
        accepted=before.accepted,
        claims=_claims_of(letters),
    )
    return known, letters


async def peek(connection: AsyncConnection, keys: BatchKeys, already: Known) -> Known:
    """What `load` reads, without a lock and without an insert, of what is not known `already`.

    Neither parked reports nor stored dead letters are among it.
    """
    unknown = keys.claims.keys() - already.registered.keys()
    registered = _tracked(keys.claims, await store.peek(connection, unknown))
    announced = await store.announced_before(connection, keys.announcements | keys.beginnings)
    known = await store.read_known(connection, keys.reports, keys.operations - already.operation_types.keys())
    return Known(
        operation_types=known.operations.types,
        timing=known.operations.timing,
        clock=known.operations.clock,
        new_announcements=keys.announcements - announced,
        begun=keys.beginnings & announced,
        registered=registered,
        accepted=known.accepted,
        kept=known.kept,
    )


async def peek_parked(
    connection: AsyncConnection, found: Sequence[ParkedReport], reports: Sequence[DeadLetter], already: Known
) -> Known:
    """What `load_parked` reads, in the same way, for the reports that were found."""
    claims: dict[UUID, Claim] = {each.device_operation_id: (each.operation_id, *_UNUSED) for each in found}
    keys = [letter.report.key for letter in reports if letter.report]
    return await peek(connection, BatchKeys(claims=claims, reports=keys), already)


def _claims_of(letters: Iterable[DeadLetter]) -> dict[UUID, Claim]:
    reports = [letter.report for letter in letters if letter.report]
    return {each.key[0]: (each.report.operation_id, each.report.device_id, each.at, "", None) for each in reports}


def _tracked(
    claims: Mapping[UUID, Claim], rows: Iterable[store.StoredState]
) -> dict[UUID, TrackedDeviceOperation]:
    states = store.STATES
    return {
        id_: TrackedDeviceOperation(
            claims[id_][0],
            state := states[code],
            dispatched,
            times,
            (state, dispatched, times, expires_at),
            False,
            None,
            None,
            None,
            None,
            None,
            cause,
            registered_at,
            # Dispatched before schema 0009: as if upon the registration.
            registered_at if dispatched and dispatched_at is None else dispatched_at,
            reported_at,
            False,
            expires_at,
        )
        for id_, code, dispatched, times, registered_at, dispatched_at, reported_at, expires_at, cause in rows
    }


def _expiries(
    keys: BatchKeys, missing: Collection[UUID], before: store.KnownOperations
) -> Mapping[UUID, int | None]:
    """When device operations expire that are registered now and that nothing else is reported of.

    Only a guess, which spares to write their rows twice: decisions have the last word.
    """
    timeouts: dict[UUID, Timeouts | None] = {}
    for id_ in keys.creating:
        timing = before.timing.get(id_, Timing()).updated(keys.timing.get(id_, Timing()))
        timeouts[id_] = effective(timing, before.types.get(id_) or keys.types.get(id_))
    if not any(timeouts.values()):
        return {}
    times = Times(before.clock, None, before.clock)
    ends = {id_: found and expiry(found, times) for id_, found in timeouts.items()}
    expiries = {}
    for id_ in missing:
        if (end := ends.get(keys.claims[id_][0])) is not None:
            expiries[id_] = end.at
    return expiries


def _still_parked(
    parked: Mapping[UUID, list[DeadLetter]], stored: Mapping[int, Status], replaying: Collection[int]
) -> defaultdict[UUID, list[DeadLetter]]:
    """The dead letters that are open now that they are locked, without those that the batch itself replays."""
    still: defaultdict[UUID, list[DeadLetter]] = defaultdict(list)
    for id_, letters in parked.items():
        for letter in letters:
            number = letter.message.dead_letter_id or 0
            if stored.get(number) is Status.OPEN and number not in replaying:
                still[id_].append(letter)
    return still
