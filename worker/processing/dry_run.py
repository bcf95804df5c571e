"""Dry run of a replay: the same loading, without locks, and the same decisions; nothing is written."""

import asyncio
from collections.abc import AsyncIterable, Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.config.reporters import Reporters
from worker.model.dead_letter import DeadLetter
from worker.model.messages import Item, Key
from worker.model.outcomes import Status, Tally
from worker.processing import backlog
from worker.processing.backlog import ParkedReport, is_too_large, list_parked
from worker.processing.batch_keys import BatchKeys, TooLarge
from worker.processing.decider import Decider
from worker.processing.decisions import Decisions, Outcome
from worker.processing.known import Known
from worker.processing.loading import peek, peek_parked
from worker.processing.splitting import process_items
from worker.processing.transaction import decide
from worker.store import batch as store
from worker.store.errors import is_rejected


class DryRun:
    """Transactions over one snapshot that write nothing; each knows the decisions of those before."""

    def __init__(self, connection: AsyncConnection, reporters: Reporters | None = None) -> None:
        self._connection = connection
        self._known = Known()
        self._decider = Decider(self._known, reporters)
        self._peeked: set[Key] = set()
        """Announcements and beginnings that were looked up."""
        self._released: set[UUID] = set()
        """Device operations whose stored parked reports are all decided."""
        self._listed: dict[int, DeadLetter] = {}
        """Reports that were parked in this dry run, by the id that they were listed with."""
        self.tally = Tally()
        self.outcomes: dict[int, Outcome] = {}
        """The final outcome of each stored dead letter, by id."""

    async def run(self, batches: AsyncIterable[Sequence[Item]]) -> None:
        """Decide batches of stored dead letters, one after another."""
        async for items in batches:
            self.tally.add(await process_items(self, items))

    @property
    def selected(self) -> Collection[int]:
        """The stored dead letters that were among the items."""
        return self._known.stored.keys()

    async def process(self, items: Sequence[Item], *, releases_parked: bool = True) -> Tally:
        """Decide items."""
        keys = BatchKeys.of(items)
        letters = await self._parked_for(keys) if releases_parked else []
        keys.announcements -= self._peeked
        keys.beginnings -= self._peeked
        self._peeked |= keys.announcements | keys.beginnings
        self._learn(await peek(self._connection, keys, self._known), keys.stored)
        for letter in letters:
            assert letter.report is not None
            self._known.parked[letter.report.key[0]].append(letter)
        decisions = self._begin(releases_parked=releases_parked)
        await decide(items, self._decider)
        fingerprints = {letter.fingerprint for letter in decisions.dead_letters}
        before = await store.kept_before(self._connection, fingerprints)
        discarded = await store.discarded_before(self._connection, before)
        decisions.count_unidentified(fingerprints - before, discarded, {})
        if releases_parked:
            self._released |= keys.registering & self._known.registered.keys()
        self._end(keys.registering)
        return decisions.tally

    async def release(self, found: Sequence[ParkedReport], *, refused: str | None = None) -> Tally:  # noqa: ARG002
        """Decide parked reports."""
        new = [self._listed.pop(each.id) for each in found if each.id in self._listed]
        for letter in new:
            assert letter.report is not None
            self._known.parked[letter.report.key[0]].remove(letter)
        letters = await backlog.read(self._connection, [each.id for each in found]) + new
        self._learn(await peek_parked(self._connection, found, letters, self._known), ())
        decisions = self._begin(releases_parked=self._decider.releases_parked)
        for letter in letters:
            if letter.report is not None and letter.report.key[0] in self._known.registered:
                self._decider.release(letter)
        self._end(())
        return decisions.tally

    async def waiting(self, device_operations: Collection[UUID], limit: int) -> Sequence[ParkedReport]:
        """The parked reports of device operations, those parked in this dry run included."""
        stored = await list_parked(self._connection, device_operations, limit + len(self.outcomes))
        new = (letter for id_ in device_operations for letter in self._known.parked.get(id_, ()))
        self._listed = {letter.message.dead_letter_id or -n: letter for n, letter in enumerate(new, 1)}
        found = [each for each in stored if each.id not in self.outcomes]
        for id_, letter in self._listed.items():
            assert letter.report is not None
            key, operation = letter.report.key, letter.report.report.operation_id
            found.append(ParkedReport(id_, operation, key[0], len(letter.message.body)))
        # New dead letters, without an id, are younger than all stored ones.
        found.sort(key=lambda each: (each.device_operation_id.bytes, each.id < 0, abs(each.id)))
        return found[:limit]

    async def weigh(self, device_operations: Collection[UUID]) -> Mapping[UUID, tuple[int, int]]:
        """How many parked reports device operations have, and their bytes."""
        return await store.weigh_parked(self._connection, set(device_operations) - self._released)

    async def pause(self, seconds: float) -> None:  # noqa: ARG002  # it holds no lock
        """Give the event loop a turn."""
        await asyncio.sleep(0)

    async def is_of_data(self, error: Exception) -> bool:
        """Whether the data of a transaction broke it."""
        return is_rejected(error)

    def _begin(self, *, releases_parked: bool) -> Decisions:
        fingerprints = self._decider.decisions.fingerprints
        decisions = Decisions(self._known, outcomes=self.outcomes, fingerprints=fingerprints)
        self._decider.decisions, self._decider.releases_parked = decisions, releases_parked
        return decisions

    def _end(self, device_operations: Collection[UUID]) -> None:
        """Keep of the parked reports those that are new: the snapshot has the others."""
        for id_ in device_operations:
            letters = self._known.parked.pop(id_, ())
            new = [each for each in letters if self._is_new(each.message.dead_letter_id)]
            if new:
                self._known.parked[id_] = new

    def _is_new(self, dead_letter_id: int | None) -> bool:
        return dead_letter_id is None or dead_letter_id in self.outcomes

    async def _parked_for(self, keys: BatchKeys) -> list[DeadLetter]:
        """The stored parked reports to release, without those that the batch itself replays."""
        found = await self.waiting(keys.registering, backlog.MAX_REPORTS + 1)
        if is_too_large(found):
            raise TooLarge
        ids = [each.id for each in found if each.id not in self._listed and each.id not in keys.stored]
        return await backlog.read(self._connection, ids)

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
