"""The ids and keys that a batch touches, from its items alone."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from uuid import UUID

from worker.model.identity import device_operation_id
from worker.model.messages import Announced, Incoming, Item, Key, Overdue, plausible
from worker.model.state_times import entry
from worker.model.timing import Timing
from worker.processing.known import CREATED, Claim

MAX_DEVICES = 5_000
"""Devices of an announcement in one transaction."""


class TooLarge(Exception):
    """The items take more than one transaction; see `worker.processing.splitting`."""


@dataclass(slots=True)
class BatchKeys:
    """The ids and keys that a batch touches."""

    claims: dict[UUID, Claim] = field(default_factory=dict)
    """Device operations, by id."""
    registering: set[UUID] = field(default_factory=set)
    """The device operations that the items register unless they are registered."""
    creating: dict[UUID, datetime] = field(default_factory=dict)
    """The operations that the items create unless they exist, and their creation times."""
    announcements: set[Key] = field(default_factory=set)
    """Announcements that begin or end in this batch."""
    beginnings: set[Key] = field(default_factory=set)
    """The beginning keys (`Announced.beginning`) of announcements that begin in this batch."""
    reports: list[Key] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    """Ids of the stored dead letters among the items."""
    timing: dict[UUID, Timing] = field(default_factory=dict)
    """What the items' announcements say of timeouts, by operation."""
    types: dict[UUID, str] = field(default_factory=dict)
    """The types that the items name for operations that they may create."""

    @classmethod
    def of(cls, items: Iterable[Item]) -> Self:
        """The keys of items. Raises TooLarge if one of them announces more than `MAX_DEVICES`."""
        keys = cls()
        for item in items:
            if isinstance(item, Incoming):
                keys._add_report(item)
            elif isinstance(item, Announced):
                keys._add_announcement(item)
            elif isinstance(item, Overdue):
                keys.claims[item.id] = (item.operation_id, item.device_id, item.message.received_at, "", None)
            letter = item.message.dead_letter_id or item.message.part_of
            if letter is not None:
                keys.stored.add(letter)
        return keys

    @property
    def operations(self) -> set[UUID]:
        """Every operation that the items name."""
        return {operation_id for operation_id, *_ in self.claims.values()} | self.creating.keys()

    def _add_report(self, item: Incoming) -> None:
        id_, report = item.key[0], item.report
        self.reports.append(item.key)
        if report.state is CREATED:
            since = plausible(item.at, item.message.received_at)
            self.creating.setdefault(report.operation_id, since)
            if report.operation_type:
                self.types.setdefault(report.operation_id, report.operation_type)
            claim = report.operation_id, report.device_id, since, entry(CREATED, since), report.service_id
            self._add_registration(id_, claim)
        elif id_ not in self.claims:
            self.claims[id_] = (report.operation_id, report.device_id, item.at, "", None)

    def _add_announcement(self, item: Announced) -> None:
        operation_id, devices = item.announcement.id, item.devices
        if len(devices) > MAX_DEVICES:
            raise TooLarge
        since = plausible(item.at, item.message.received_at)
        state_times = entry(CREATED, since)
        self.creating.setdefault(operation_id, since)
        self.timing[operation_id] = self.timing.get(operation_id, Timing()).updated(item.announcement.timing)
        if item.announcement.operation_type:
            self.types[operation_id] = item.announcement.operation_type
        if item.key is not None and (item.begins or item.ends):
            self.announcements.add(item.key)
        if item.beginning is not None and item.begins:
            self.beginnings.add(item.beginning)
        for device_id in devices:
            id_ = device_operation_id(operation_id, device_id)
            self._add_registration(id_, (operation_id, device_id, since, state_times, None))

    def _add_registration(self, id_: UUID, claim: Claim) -> None:
        if id_ not in self.registering:
            self.registering.add(id_)
            self.claims[id_] = claim
