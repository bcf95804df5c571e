"""Which device operations of an operation are meant: the filters of lists, exports and retries."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, true

from statemachine import State
from worker.model.causes import cause_of_reason
from worker.store.documents import Progress
from worker.store.listing import Listing, Period
from worker.store.pagination import Ordering
from worker.store.tables import device_operations


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Filters of device operations, all of which hold; None is no filter.

    `code`, `service_id` and `reason` are those of the report that moved a device operation to its state. A
    `reason` finds the device operations of its group: those without a code whose masked reason is the same.
    """

    states: frozenset[State] | None = None
    service_id: str | None = None
    code: str | None = None
    reason: str | None = None
    updated_after: datetime | None = None
    """From this time on."""
    updated_before: datetime | None = None
    """Before this time."""

    @property
    def is_of_states(self) -> bool:
        """Whether there is no filter but that of the states, so that counters have the numbers."""
        return not self.conditions

    @property
    def ordering(self) -> Ordering:
        """The default sort order, which an index has."""
        return Ordering.CREATED_AT if self.is_of_states else Ordering.UPDATED_AT

    @property
    def wanted_states(self) -> Collection[State]:
        """The states to include."""
        return list(State) if self.states is None else self.states

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions other than the states."""
        return [*self._on_report, *self._period.conditions(device_operations.c.updated_at)]

    @property
    def of_states(self) -> ColumnElement[bool]:
        """The condition of the states."""
        return true() if self.states is None else device_operations.c.state.in_(self.states)

    def of_operation(self, operation_id: UUID) -> ColumnElement[bool]:
        """The condition for an operation's device operations."""
        return and_(device_operations.c.operation_id == operation_id, self.of_states, *self.conditions)

    def counts(self, progress: Progress) -> dict[State, int]:
        """The numbers of device operations by the states to include, whatever the other filters say."""
        return {state: progress.counters.in_state(state) for state in self.wanted_states}

    def listing(self, operation_id: UUID, progress: Progress) -> Listing:
        """An operation's device operations in pages; `progress` is of the same transaction."""
        return Listing(
            device_operations,
            and_(device_operations.c.operation_id == operation_id, *self._on_report),
            list(State),
            self.counts(progress),
            "updated_at",
            self._period,
            is_counted=self.is_of_states,
        )

    @property
    def _period(self) -> Period:
        return Period(self.updated_after, self.updated_before)

    @property
    def _on_report(self) -> list[ColumnElement[bool]]:
        column, found = device_operations.c, list[ColumnElement[bool]]()
        if self.service_id is not None:
            found.append(column.service_id == self.service_id)
        if self.code is not None:
            found.append(column.cause == self.code)
        if self.reason is not None:
            found.append(column.cause == cause_of_reason(self.reason))
        return found
