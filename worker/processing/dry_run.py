"""What would come of a replay: the same decisions as the processor's, without a lock and without a trace."""

import asyncio
from collections.abc import AsyncIterable, Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.dead_letter import DeadLetter
from worker.model.messages import Item, Key
from worker.model.outcomes import Status, Tally
from worker.processing import backlog as waiting
from worker.processing.backlog import TooMuch, Waiting
from worker.processing.decisions import Ledger
from worker.processing.loading import Scope
from worker.processing.splitting import settle_items
from worker.processing.transaction import take
from worker.store import batch as store
from worker.store.errors import is_refused


async def foresee(connection: AsyncConnection, batches: AsyncIterable[Sequence[Item]], ledger: Ledger) -> None:
    """Take batches of stored dead letters into a ledger, one after another; nothing is written.

    The connection gives one snapshot. The ledger then has the tally, and the outcomes of the dead letters that it
    has as `stored`.
    """
    foreseen, tally = _Foreseen(connection, ledger), Tally()
    async for items in batches:
        tally.add(await settle_items(foreseen, items))
    ledger.tally = tally


class _Foreseen:
    """Transactions that only a ledger knows of."""

    def __init__(self, connection: AsyncConnection, ledger: Ledger) -> None:
        self._connection = connection
        self._ledger = ledger
        self._met: set[Key] = set()
        """The announcements that were looked up."""
        self._taken_up: set[UUID] = set()
        """Device operations of which nothing waits any more, but what came since."""
        self._listed: dict[int, DeadLetter] = {}
        """What waits since it came, by the id that it was listed with."""

    async def process(self, items: Sequence[Item], *, takes_up: bool = True) -> Tally:
        """Decide items."""
        ledger, scope = self._ledger, Scope.of(items)
        letters = await self._waiting_for(scope) if takes_up else []
        scope.announcements -= self._met
        self._met |= scope.announcements
        await self._learn(scope)
        for letter in letters:
            assert letter.report is not None
            ledger.waiting[letter.report.key[0]].append(letter)
        ledger.tally, ledger.takes_up = Tally(), takes_up
        await take(ledger, items)
        fingerprints = {letter.fingerprint for letter in ledger.dead_letters}
        kept_before = await store.kept_before(self._connection, fingerprints)
        ledger.count_as_duplicates(
            fingerprints - kept_before, await store.discarded_before(self._connection, kept_before)
        )
        if takes_up:
            self._taken_up |= scope.registering & ledger.held.keys()
        self._forget(scope.registering)
        return ledger.tally

    async def release(self, found: Sequence[Waiting], *, refused: str | None = None) -> Tally:  # noqa: ARG002
        """Decide parked reports."""
        ledger = self._ledger
        letters = [self._listed.pop(each.id) for each in found if each.id in self._listed]
        for letter in letters:
            assert letter.report is not None
            ledger.waiting[letter.report.key[0]].remove(letter)
        letters = await waiting.read(self._connection, [each.id for each in found]) + letters
        scope = Scope.of_waiting(found)
        ledger.tally = Tally()
        scope.reports += [letter.report.key for letter in letters if letter.report]
        await self._learn(scope)
        for letter in letters:
            if letter.report is not None and letter.report.key[0] in ledger.held:
                ledger.release(letter)
        self._forget(())
        return ledger.tally

    async def waiting(self, device_operations: Collection[UUID], limit: int) -> Sequence[Waiting]:
        """The parked reports of device operations, those that came since among them."""
        outcomes = self._ledger.outcomes
        stored = await waiting.waiting(self._connection, device_operations, limit + len(outcomes))
        since = (letter for id_ in device_operations for letter in self._ledger.waiting.get(id_, ()))
        self._listed = {letter.message.dead_letter_id or -n: letter for n, letter in enumerate(since, 1)}
        found = [each for each in stored if each.id not in outcomes]
        for id_, letter in self._listed.items():
            assert letter.report is not None
            key, operation = letter.report.key, letter.report.report.operation_id
            found.append(Waiting(id_, operation, key[0], len(letter.message.body)))
        # What has no id is younger than all that have.
        found.sort(key=lambda each: (each.device_operation_id.bytes, each.id < 0, abs(each.id)))
        return found[:limit]

    async def weigh(self, device_operations: Collection[UUID]) -> Mapping[UUID, tuple[int, int]]:
        """How many parked reports device operations have."""
        return await store.weigh_parked(self._connection, set(device_operations) - self._taken_up)

    async def pause(self, seconds: float) -> None:  # noqa: ARG002  # it holds nothing that others wait for
        """Let others have their turn."""
        await asyncio.sleep(0)

    async def is_of_data(self, error: Exception) -> bool:
        """Whether the data of a transaction broke it."""
        return is_refused(error)

    async def _waiting_for(self, scope: Scope) -> list[DeadLetter]:
        """What would be taken up beside what came since: but for what comes in its own turn now."""
        found = await self.waiting(scope.registering, waiting.MAX_REPORTS + 1)
        if waiting.is_too_much(found):
            raise TooMuch
        ids = [each.id for each in found if each.id not in self._listed and each.id not in scope.stored]
        return await waiting.read(self._connection, ids)

    async def _learn(self, scope: Scope) -> None:
        """Read what a transaction is about, but for what earlier ones know better."""
        ledger, connection = self._ledger, self._connection
        ledger.held |= scope.held(await store.look(connection, scope.claims.keys() - ledger.held.keys()))
        known_before = await store.announced_before(connection, scope.announcements | scope.beginnings)
        ledger.new_announcements |= scope.announcements - known_before
        ledger.begun |= scope.beginnings & known_before
        known = await store.known(connection, scope.reports, scope.operations - ledger.operation_types.keys())
        ledger.operation_types |= known.operation_types
        ledger.seen |= known.accepted
        kept = {key: id_ for key, id_ in known.kept.items() if not self._has_lost_identity(id_)}
        ledger.kept = kept | ledger.kept
        # What an earlier transaction has released is resolved by now.
        is_done = {id_: isinstance(ledger.outcomes.get(id_), str) for id_ in scope.stored}
        ledger.stored |= {id_: Status.RESOLVED if done else Status.OPEN for id_, done in is_done.items()}

    def _has_lost_identity(self, id_: int) -> bool:
        """Whether an earlier transaction would have kept a dead letter without its stored identity."""
        outcome = self._ledger.outcomes.get(id_)
        return isinstance(outcome, DeadLetter) and outcome.report is None

    def _forget(self, device_operations: Collection[UUID]) -> None:
        """Keep nothing that would be written by now, or that the snapshot still has for a registration refused."""
        ledger = self._ledger
        for written in (ledger.activity, ledger.dead_letters, ledger.history):
            written.clear()
        for id_ in device_operations:
            since = [each for each in ledger.waiting.pop(id_, ()) if self._came_since(each.message.dead_letter_id)]
            if since:
                ledger.waiting[id_] = since

    def _came_since(self, dead_letter_id: int | None) -> bool:
        return dead_letter_id is None or dead_letter_id in self._ledger.outcomes
