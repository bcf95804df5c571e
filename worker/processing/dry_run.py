"""Dry run of a replay: the same loading, without locks, and the same decisions; nothing is written.

What a transaction would have written is kept for those that follow. A report that it has parked gets an id, as the
database would give it one: for the decisions, what has none is new in their own transaction.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.config.reporters import Reporters
from worker.model.dead_letter import DeadLetter
from worker.model.messages import Item, Key
from worker.model.outcomes import Status, Tally
from worker.processing import backlog, splitting
from worker.processing.backlog import ParkedReport, is_too_large, list_parked
from worker.processing.batch_keys import BatchKeys, TooLarge
from worker.processing.decider import Decider
from worker.processing.decisions import Decisions, Outcome
from worker.processing.known import Known
from worker.processing.loading import peek, peek_parked
from worker.processing.transaction import decide
from worker.store import dead_letter_batch
from worker.store.errors import is_rejected

NEW = 2**62
"""The first id of the dead letters that dry runs make: after all that are stored, as they are younger."""


class DryRun:
    """Transactions over one snapshot that write nothing; each knows the decisions of those before."""

    def __init__(self, connection: AsyncConnection, reporters: Reporters | None = None) -> None:
        self._connection = connection
        self._known = Known()
        self._decider = Decider(self._known, reporters)
        self._peeked: set[Key] = set()
        """Announcements and beginnings that were looked up."""
        self._ids = count(NEW)
        self._parked: defaultdict[UUID, set[int]] = defaultdict(set)
        """Dead letters that this dry run has parked, by device operation."""
        self._fingerprints: set[UUID] = set()
        """Of the dead letters that this dry run has left or made without a report's identity."""
        self.tally = Tally()
        self.outcomes: dict[int, Outcome] = {}
        """The final outcome of each dead letter that was decided, by id; of new ones, those that were parked."""

    async def run(self, batches: AsyncIterable[Sequence[Item]]) -> None:
        """Decide batches of stored dead letters, one after another."""
        async for items in batches:
            self.tally.add(await splitting.process_items(self, items))

    @property
    def selected(self) -> Collection[int]:
        """The stored dead letters that were among the items."""
        return self._known.stored.keys()

    async def process(self, items: Sequence[Item], *, releases_parked: bool = True) -> Tally:
        """Decide items."""
        keys = BatchKeys.of(items)
        parked = await self._parked_for(keys) if releases_parked else []
        keys.announcements -= self._peeked
        keys.beginnings -= self._peeked
        self._peeked |= keys.announcements | keys.beginnings
        self._learn(await peek(self._connection, keys, self._known), keys.stored)
        decisions = self._begin(parked, releases_parked=releases_parked)
        await decide(items, self._decider)
        await self._end(decisions)
        return decisions.tally

    async def release(self, found: Sequence[ParkedReport], *, refused: str | None = None) -> Tally:  # noqa: ARG002
        """Decide parked reports."""
        letters = await self._read([each.id for each in found])
        self._learn(await peek_parked(self._connection, found, letters, self._known), ())
        decisions = self._begin((), releases_parked=False)
        for letter in letters:
            if letter.report is not None and letter.report.key[0] in self._known.registered:
                self._decider.release(letter)
        await self._end(decisions)
        return decisions.tally

    async def waiting(self, device_operations: Collection[UUID], limit: int) -> Sequence[ParkedReport]:
        """The parked reports of device operations, those parked in this dry run included."""
        stored = await list_parked(self._connection, device_operations, limit + len(self.outcomes))
        found = [each for each in stored if each.id not in self.outcomes]
        ids = (id_ for device_operation in device_operations for id_ in self._parked.get(device_operation, ()))
        found += map(self._listed, ids)
        found.sort(key=lambda each: (each.device_operation_id.bytes, each.id))
        return found[:limit]

    async def weigh(self, device_operations: Collection[UUID]) -> Mapping[UUID, tuple[int, int]]:
        """How many parked reports device operations have, and their bytes.

        They are listed: the snapshot's numbers have those that are decided by now, and not those parked since.
        """
        weights: dict[UUID, tuple[int, int]] = {}
        ids = iter(device_operations)
        while some := list(islice(ids, splitting.DEVICES)):
            for each in await self.waiting(some, NEW):
                reports, size = weights.get(each.device_operation_id, (0, 0))
                weights[each.device_operation_id] = reports + 1, size + each.size
        return weights

    async def pause(self, seconds: float) -> None:  # noqa: ARG002  # it holds no lock
        """Give the event loop a turn."""
        await asyncio.sleep(0)

    async def is_of_data(self, error: Exception) -> bool:
        """Whether the data of a transaction broke it."""
        return is_rejected(error)

    def _begin(self, parked: Iterable[DeadLetter], *, releases_parked: bool) -> Decisions:
        """Begin a transaction that has loaded these parked reports."""
        self._known.parked = defaultdict(list)
        for letter in parked:
            assert letter.report is not None
            self._known.parked[letter.report.key[0]].append(letter)
        decisions = Decisions(self._known)
        self._decider.decisions, self._decider.releases_parked = decisions, releases_parked
        return decisions

    async def _end(self, decisions: Decisions) -> None:
        """Keep what the transaction would have written, stored dead letters first, as it does."""
        for id_, outcome in decisions.outcomes.items():
            self._settle(id_, outcome)
        fingerprints = {letter.fingerprint for letter in decisions.dead_letters if letter.report is None}
        before = await dead_letter_batch.kept(self._connection, fingerprints)
        discarded = await dead_letter_batch.discarded(self._connection, before)
        decisions.count_unidentified(fingerprints - before - self._fingerprints, discarded, {})
        self._fingerprints |= fingerprints
        for letter in decisions.dead_letters:
            if letter.status is Status.OPEN and letter.reason.traits.is_parked:
                id_ = next(self._ids)
                letter.message = replace(letter.message, dead_letter_id=id_)
                self._settle(id_, letter)

    def _settle(self, id_: int, outcome: Outcome) -> None:
        """Keep the outcome of a dead letter.

        The fingerprint that it may have had before counts as that of a dead letter still: if it has a report's
        identity now, then another message that had the same one would be a duplicate of that report.
        """
        before = self.outcomes.get(id_)
        if isinstance(before, DeadLetter) and before.report is not None:
            self._parked[before.report.key[0]].discard(id_)
        self.outcomes[id_] = outcome
        if not isinstance(outcome, DeadLetter):
            return
        if outcome.report is None:
            self._fingerprints.add(outcome.fingerprint)
        elif outcome.reason.traits.is_parked:
            self._parked[outcome.report.key[0]].add(id_)

    async def _parked_for(self, keys: BatchKeys) -> list[DeadLetter]:
        """The parked reports to release, without those that the batch itself replays."""
        found = await self.waiting(keys.registering, backlog.MAX_REPORTS + 1)
        if is_too_large(found):
            raise TooLarge
        return await self._read([each.id for each in found if each.id not in keys.stored])

    async def _read(self, ids: Sequence[int]) -> list[DeadLetter]:
        """The parked reports with these ids, the oldest first."""
        letters = await backlog.read(self._connection, [id_ for id_ in ids if id_ not in self.outcomes])
        kept = map(self.outcomes.get, ids)
        letters += [letter for letter in kept if isinstance(letter, DeadLetter)]
        return sorted(letters, key=lambda letter: letter.message.dead_letter_id or 0)

    def _listed(self, id_: int) -> ParkedReport:
        letter = self.outcomes[id_]
        assert isinstance(letter, DeadLetter)
        assert letter.report is not None
        return ParkedReport(id_, letter.report.report.operation_id, letter.report.key[0], letter.size)

    def _learn(self, found: Known, stored: Collection[int]) -> None:
        """Add what is stored; what this dry run has decided counts more."""
        known = self._known
        known.registered |= found.registered
        known.new_announcements |= found.new_announcements
        known.begun |= found.begun
        known.operation_types |= found.operation_types
        known.timing |= found.timing
        known.accepted |= found.accepted
        kept = {key: id_ for key, id_ in found.kept.items() if not self._has_lost_identity(id_)}
        known.kept = kept | known.kept
        # What an earlier transaction of this dry run has released is resolved.
        is_resolved = {id_: isinstance(self.outcomes.get(id_), str) for id_ in stored}
        known.stored |= {id_: Status.RESOLVED if done else Status.OPEN for id_, done in is_resolved.items()}

    def _has_lost_identity(self, id_: int) -> bool:
        """Whether an earlier transaction has kept a dead letter without its report's identity."""
        outcome = self.outcomes.get(id_)
        return isinstance(outcome, DeadLetter) and outcome.report is None
