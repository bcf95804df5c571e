"""What a batch is about: what its items alone say of that, and what is known of it before anything is decided."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import State
from worker.dead_letters import DeadLetter, stored_message
from worker.ledger import Claim, DeviceOperation
from worker.messages import Announced, Incoming, Item, Key, device_operation_id, parse, plausible
from worker.reached import entry
from worker.store import batch as store


@dataclass(slots=True)
class Scope:
    """What the items of a batch are about."""

    claims: dict[UUID, Claim] = field(default_factory=dict)
    """Device operations, by id."""
    registering: set[UUID] = field(default_factory=set)
    """Those of them that the items register if they are not."""
    creating: dict[UUID, datetime] = field(default_factory=dict)
    """The operations that the items create if they are unknown, and when."""
    announcements: set[Key] = field(default_factory=set)
    reports: list[Key] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    """The stored dead letters among the items."""

    @classmethod
    def of(cls, items: Iterable[Item]) -> Self:
        """The scope of items."""
        scope = cls()
        for item in items:
            if isinstance(item, Incoming):
                scope._take_report(item)
            elif isinstance(item, Announced):
                scope._take_announcement(item)
            letter = item.message.dead_letter_id or item.message.part_of
            if letter is not None:
                scope.stored.add(letter)
        return scope

    @property
    def operations(self) -> set[UUID]:
        """Every operation that the items are about."""
        return {operation_id for operation_id, *_ in self.claims.values()} | self.creating.keys()

    def held(self, rows: Iterable[store.Held]) -> dict[UUID, DeviceOperation]:
        """The device operations that are registered, by id, from what is stored of them."""
        return {
            id_: DeviceOperation(
                self.claims[id_][0], state, dispatched, reached, stored=(state, dispatched, reached), is_new=False
            )
            for id_, state, dispatched, reached in rows
        }

    def _take_report(self, item: Incoming) -> None:
        id_, report = item.key[0], item.report
        self.reports.append(item.key)
        if report.state is State.CREATED:
            since = plausible(item.at, item.message.received_at)
            self.creating.setdefault(report.operation_id, since)
            self._register(id_, report.operation_id, report.device_id, since, entry(State.CREATED, item.at))
        elif id_ not in self.claims:
            self.claims[id_] = (report.operation_id, report.device_id, item.at, "")

    def _take_announcement(self, item: Announced) -> None:
        operation_id = item.announcement.id
        since = plausible(item.at, item.message.received_at)
        reached = entry(State.CREATED, item.at)
        self.creating.setdefault(operation_id, since)
        if item.key is not None:
            self.announcements.add(item.key)
        for device_id in item.announcement.device_ids or ():
            id_ = device_operation_id(operation_id, device_id)
            self._register(id_, operation_id, device_id, since, reached)

    def _register(self, id_: UUID, operation_id: UUID, device_id: UUID, since: datetime, reached: str) -> None:
        if id_ not in self.registering:
            self.registering.add(id_)
            self.claims[id_] = (operation_id, device_id, since, reached)


async def waiting_for(
    connection: AsyncConnection, device_operations: Collection[UUID]
) -> defaultdict[UUID, list[DeadLetter]]:
    """The parked reports that wait for these registrations, by device operation."""
    waiting: defaultdict[UUID, list[DeadLetter]] = defaultdict(list)
    for row in await store.parked(connection, device_operations):
        message = stored_message(row)
        [item] = parse(message)
        assert isinstance(item, Incoming), "only a readable report is ever parked"
        waiting[item.key[0]].append(DeadLetter(row.reason, row.detail, message, item))
    return waiting
