"""Several batches in one transaction: all of them have their effect, or none.

Device operations, histories and dead letters are written batch by batch, which bounds the memory. The operations
are counted for once, at the end, so that each has one change.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import Counters, contribution
from worker.config.reporters import Reporters
from worker.model.causes import Group, GroupKey
from worker.model.changes import Moved, Told, told
from worker.model.messages import Announced, Incoming, Key
from worker.model.outcomes import Tally
from worker.model.state_times import entry
from worker.processing import changes
from worker.processing.backlog import ParkedReport
from worker.processing.batch_keys import BatchKeys
from worker.processing.decider import Decider
from worker.processing.decisions import Decisions, expires_at
from worker.processing.known import Known, TrackedDeviceOperation
from worker.processing.loading import load, load_parked
from worker.processing.transaction import decide, write_dead_letters, write_operations, write_registrations
from worker.store import batch as store
from worker.store.database import Database


async def process_together(
    database: Database, batches: Iterable[Sequence[Incoming]], once: Key | None = None
) -> Tally:
    """Process several batches of reports in one transaction; nothing if the key `once` is an earlier one's.

    The reports are about registered device operations, whose ids grow from each batch to the next, so that locks
    are taken in the order that all transactions keep. Raises the database's errors.
    """
    async with database.write() as connection:
        together = Together(connection)
        if once is None or await store.take_announcements(connection, [once]):
            for items in batches:
                await together.process(items)
        return await together.finish()


class Together:
    """Batches that one transaction processes.

    `created` are the operations that the transaction has created before. To keep the lock order, batches and
    registrations come before what is released, and the ids of their device operations grow from each to the next.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        reporters: Reporters | None = None,
        created: Collection[UUID] = (),
    ) -> None:
        self._connection = connection
        self._reporters = reporters
        self._now = datetime.now(UTC)
        self._tally = Tally()
        self._counting = Decisions(Known(created_operations=set(created)))
        """What is to be written for operations, without device operations."""
        self._counters: defaultdict[UUID, Counters] = defaultdict(Counters)
        self._groups: dict[GroupKey, Group] = {}
        self._moved: defaultdict[UUID, dict[UUID, Moved]] = defaultdict(dict)
        """By operation and device."""

    async def process(self, items: Sequence[Incoming | Announced]) -> None:
        """Process a batch, without releasing parked reports. Raises Overtaken, and TooLarge as `BatchKeys.of`."""
        known = await load(self._connection, BatchKeys.of(items), self._now, releases_parked=False)
        decider = self._decider(known)
        await self._write(await decide(items, decider))

    async def register(self, announced: Announced, portions: Iterable[Sequence[tuple[UUID, UUID]]]) -> None:
        """Register device operations (id, device) for an announcement without devices that was processed before.

        The transaction has created the operation, so that nothing of them is stored, and nothing to be decided.
        """
        known, id_ = self._counting.known, announced.announcement.id
        new = TrackedDeviceOperation(id_, registered_at=known.clock, reported_at=known.clock)
        reached, expires = entry(new.state, announced.at), expires_at(new, known.timeouts(id_))
        common = store.Registration(id_, announced.at, reached, known.clock, expires)
        for rows in portions:
            await store.register(self._connection, common, rows)
            self._counters[id_] = self._counters[id_].plus(contribution(new.state, new.dispatched), len(rows))
            if told() is Told.ALL:
                moved = {device: Moved(device, new.state, None, "", None, announced.at) for _, device in rows}
                self._moved[id_] |= moved
        await store.record_registrations(self._connection, id_, announced.report_id, announced.at, self._now)

    async def release(self, found: Sequence[ParkedReport]) -> None:
        """Process parked reports of registered device operations, no more than one transaction should release."""
        known, letters = await load_parked(self._connection, found)
        decider = self._decider(known)
        for letter in letters:
            decider.release(letter)
        await self._write(decider.decisions)

    async def finish(self) -> Tally:
        """Count for the operations, and write what follows from that; returns the numbers of all batches."""
        moved = {id_: list(devices.values()) for id_, devices in self._moved.items()}
        await write_operations(self._connection, self._counting, self._counters, self._groups, moved, self._now)
        self._tally.add(self._counting.tally)
        if not self._counters:
            await store.wait_for_standbys(self._connection)
        return self._tally

    def _decider(self, known: Known) -> Decider:
        """A decider that also knows what earlier batches have decided for operations, and not yet written."""
        known.operation_types |= self._counting.known.operation_types
        known.timing |= self._counting.known.timing
        return Decider(known, self._reporters, int(self._now.timestamp()), releases_parked=False)

    async def _write(self, decisions: Decisions) -> None:
        """Write what is of device operations, and keep the rest until the end."""
        decisions.finish()
        await write_registrations(self._connection, decisions)
        await write_dead_letters(self._connection, decisions, self._now, None)
        counting, known = self._counting, decisions.known
        counting.announced |= decisions.announced
        counting.named |= decisions.named
        counting.known.operation_types |= known.operation_types
        counting.known.timing |= known.timing
        counting.known.clock = known.clock
        decisions.announced.clear()
        decisions.named.clear()
        await write_operations(self._connection, decisions, {}, {}, {}, self._now)
        self._tally.add(decisions.tally)
        for id_, change in decisions.counter_changes().items():
            self._counters[id_] = self._counters[id_].plus(change)
        for key, group in decisions.group_changes().items():
            self._groups[key] = self._groups[key].plus(group) if key in self._groups else group
        for id_, devices in changes.moved_devices(decisions).items():
            moved = self._moved[id_]
            for each in devices:
                earlier = moved.get(each.device_id)
                moved[each.device_id] = each if earlier is None else each._replace(before=earlier.before)
