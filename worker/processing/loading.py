"""What a batch is about: what its items alone say of that, and what is known of it before anything is decided."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from worker.model.messages import Announced, Incoming, Item, Key, device_operation_id, plausible
from worker.model.state_times import entry
from worker.processing.backlog import TooMuch, Waiting
from worker.processing.decisions import CREATED, Claim, DeviceOperation
from worker.store import batch as store

AT_ONCE = 5_000
"""Devices of an announcement in one transaction."""
_UNUSED = UUID(int=0), datetime.max.replace(tzinfo=UTC), ""
"""What a claim has beside the operation, where nothing is registered."""


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
    """Those that are begun or done with."""
    beginnings: set[Key] = field(default_factory=set)
    """Those of them that are begun."""
    reports: list[Key] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    """The stored dead letters among the items."""

    @classmethod
    def of(cls, items: Iterable[Item]) -> Self:
        """The scope of items. Raises TooMuch if one of them announces too many devices for one transaction."""
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

    @classmethod
    def of_waiting(cls, waiting: Iterable[Waiting]) -> Self:
        """The scope of parked reports whose device operations are registered."""
        return cls(claims={each.device_operation_id: (each.operation_id, *_UNUSED) for each in waiting})

    @property
    def operations(self) -> set[UUID]:
        """Every operation that the items are about."""
        return {operation_id for operation_id, *_ in self.claims.values()} | self.creating.keys()

    def held(self, rows: Iterable[store.Held]) -> dict[UUID, DeviceOperation]:
        """The device operations that are registered, by id, from what is stored of them."""
        claims = self.claims
        return {
            id_: DeviceOperation(claims[id_][0], state, dispatched, reached, (state, dispatched, reached), False)
            for id_, state, dispatched, reached in rows
        }

    def _take_report(self, item: Incoming) -> None:
        id_, report = item.key[0], item.report
        self.reports.append(item.key)
        if report.state is CREATED:
            since = plausible(item.at, item.message.received_at)
            self.creating.setdefault(report.operation_id, since)
            self._register(id_, report.operation_id, report.device_id, since, entry(CREATED, since))
        elif id_ not in self.claims:
            self.claims[id_] = (report.operation_id, report.device_id, item.at, "")

    def _take_announcement(self, item: Announced) -> None:
        operation_id, devices = item.announcement.id, item.devices
        if len(devices) > AT_ONCE:
            raise TooMuch
        since = plausible(item.at, item.message.received_at)
        reached = entry(CREATED, since)
        self.creating.setdefault(operation_id, since)
        if item.key is not None and (item.begins or item.ends):
            self.announcements.add(item.key)
        if item.beginning is not None and item.begins:
            self.beginnings.add(item.beginning)
        for device_id in devices:
            id_ = device_operation_id(operation_id, device_id)
            self._register(id_, operation_id, device_id, since, reached)

    def _register(self, id_: UUID, operation_id: UUID, device_id: UUID, since: datetime, reached: str) -> None:
        if id_ not in self.registering:
            self.registering.add(id_)
            self.claims[id_] = (operation_id, device_id, since, reached)
