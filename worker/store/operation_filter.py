"""Which operations are meant: the filters of lists and exports."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import OperationState
from worker.store.listing import Listing, Period
from worker.store.tables import device_operations, operations


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Filters of operations, all of which hold; None is no filter."""

    states: frozenset[OperationState] | None = None
    operation_type: str | None = None
    """Empty for operations without a type."""
    created_after: datetime | None = None
    """From this time on."""
    created_before: datetime | None = None
    """Before this time."""
    device_id: UUID | None = None
    """With a device operation of this device."""

    @property
    def condition(self) -> ColumnElement[bool]:
        """All filters as one condition."""
        column = operations.c
        states = [] if self.states is None else [column.state.in_(self.states)]
        return and_(self._scope, *states, *self._period.conditions(column.created_at))

    async def count(self, connection: AsyncConnection) -> dict[OperationState, int]:
        """The numbers of operations by state."""
        state = operations.c.state
        query = select(state, func.count().label("number")).where(self.condition).group_by(state)
        return {OperationState(row.state): row.number for row in await connection.execute(query)}

    async def listing(self, connection: AsyncConnection) -> Listing:
        """The operations in pages, counted."""
        counts = await self.count(connection)
        return Listing(operations, self._scope, list(OperationState), counts, "created_at", self._period)

    @property
    def _period(self) -> Period:
        return Period(self.created_after, self.created_before)

    @property
    def _scope(self) -> ColumnElement[bool]:
        column, found = operations.c, list[ColumnElement[bool]]()
        if self.device_id is not None:
            taking_part = select(device_operations.c.operation_id)
            found.append(column.id.in_(taking_part.where(device_operations.c.device_id == self.device_id)))
        if self.operation_type is not None:
            is_type = column.operation_type == self.operation_type
            found.append(is_type if self.operation_type else column.operation_type.is_(None))
        return and_(True, *found)
