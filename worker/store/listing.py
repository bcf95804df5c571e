"""Keyset and offset pagination of operations and device operations, at a cost that does not grow with the table.

Every index begins with the state, so that few indexes serve all orders and filters: a page over several states
merges one page of each state. A cursor seeks to its position in the index; an offset reads all rows before it.
Rows whose number is not known beforehand are counted up to `MAX_COUNT`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, and_, func, literal, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store.pagination import Cursor, Neighbour, PageRequest, PageResult, Position, neighbours

MAX_COUNT = 10_000
"""Up to which rows are counted whose number no counter has; a page's `count` is this if there are more."""


@dataclass(frozen=True, slots=True)
class Period:
    """The times from `after` on and before `before`; None is no bound."""

    after: datetime | None = None
    before: datetime | None = None

    def conditions(self, time: ColumnElement[datetime]) -> list[ColumnElement[bool]]:
        """The bounds as conditions on a timestamp."""
        found = [] if self.after is None else [time >= self.after]
        return found if self.before is None else [*found, time < self.before]

    def beyond(self, position: Position | None, *, descending: bool) -> tuple[Position | None, "Period"]:
        """The position after which to look, and the bounds that it leaves in force.

        Of two bounds at the end where rows begin, only the narrower one remains: a database may begin at the other
        one, and then reads all rows between the two.
        """
        if position is None:
            return None, self
        bound = self.before if descending else self.after
        is_narrower = bound is None or (position.time < bound if descending else position.time >= bound)
        if not is_narrower:
            return None, self
        return position, Period(self.after) if descending else Period(before=self.before)


@dataclass(frozen=True, slots=True)
class Listing:
    """The rows that pages are made of: those of a table in some states that match `scope` and `period`."""

    table: Table
    scope: ColumnElement[bool]
    states: Sequence[Any]
    """All states, in sort order."""
    counts: Mapping[Any, int]
    """The number of rows by state, for the states to include; the most that there can be unless `is_counted`."""
    dated: str = "created_at"
    """The name of the timestamp column that `period` is about."""
    period: Period = Period()
    is_counted: bool = True

    def of_state(
        self, rank: int, time: str, position: Position | None = None, *, descending: bool = False
    ) -> Select[Any]:
        """Rank, time and id of the rows in one state, sorted by a timestamp column, after a position."""
        period, column, id_ = self.period, self.table.c[time], self.table.c.id
        if time == self.dated:
            position, period = period.beyond(position, descending=descending)
        conditions = [self.scope, self.table.c.state == self.states[rank]]
        conditions += period.conditions(self.table.c[self.dated])
        if position is not None:
            row = tuple_(column, id_)
            after = tuple_(literal(position.time, column.type), literal(position.id, id_.type))
            conditions.append(row < after if descending else row > after)
        return (
            select(literal(rank).label("rank"), column.label("time"), id_.label("id"))
            .where(and_(*conditions))
            .order_by(*([column.desc(), id_.desc()] if descending else [column, id_]))
        )

    @property
    def ranks(self) -> list[int]:
        """The ranks of the states that have rows."""
        return [rank for rank, state in enumerate(self.states) if self.counts.get(state)]


async def find(connection: AsyncConnection, listing: Listing, request: PageRequest) -> PageResult[UUID]:
    """Return one page of ids of the rows of a listing."""
    cursor = request.cursor or Cursor(None)
    offset = 0 if request.cursor else request.offset
    positions = await _positions(connection, listing, request, cursor, offset)
    more = len(positions) > request.limit
    positions = positions[: request.limit]
    is_all = offset == 0 and cursor.position is None and not more
    count = len(positions) if is_all and not listing.is_counted else await _count(connection, listing)
    if cursor.backwards:
        positions.reverse()
    end = count if listing.is_counted else offset + request.limit + more
    adjacent = (
        _by_cursor(cursor, positions, more=more) if request.cursor else neighbours(request.limit, offset, end)
    )
    return PageResult(count, [position.id for position in positions], *adjacent)


async def _positions(
    connection: AsyncConnection, listing: Listing, request: PageRequest, cursor: Cursor, offset: int
) -> list[Position]:
    """The positions of a page's rows and, if there are more, of one more; the nearest to the cursor first."""
    descending = request.ordering.is_descending != cursor.backwards
    branches = []
    for rank in listing.ranks:
        if not _is_beyond(rank, request, cursor, descending):
            continue
        position = cursor.position
        if position is not None and request.ordering.by_state and rank != position.rank:
            position = None  # all rows of this state follow the cursor
        branch = listing.of_state(rank, request.ordering.time, position, descending=descending)
        branches.append(branch.limit(offset + request.limit + 1))
    if not branches:
        return []
    merged = union_all(*(select(branch.subquery()) for branch in branches)).subquery().c
    keys = [merged.rank, merged.time, merged.id] if request.ordering.by_state else [merged.time, merged.id]
    query = select(merged.rank, merged.time, merged.id).order_by(
        *(key.desc() if descending else key for key in keys)
    )
    found = await connection.execute(query.limit(request.limit + 1).offset(offset))
    return [Position(*row) for row in found]


async def _count(connection: AsyncConnection, listing: Listing) -> int:
    """The number of rows of a listing, at most `MAX_COUNT` if it has to be counted."""
    if listing.is_counted or not listing.ranks:
        return sum(listing.counts.values())
    # In the order of the index, without which PostgreSQL may read the table in place of few entries of the index.
    branches = [listing.of_state(rank, listing.dated).limit(MAX_COUNT) for rank in listing.ranks]
    rows = union_all(*(select(branch.subquery().c.id) for branch in branches)).limit(MAX_COUNT)
    return (await connection.execute(select(func.count()).select_from(rows.subquery()))).scalar_one()


def _is_beyond(rank: int, request: PageRequest, cursor: Cursor, descending: bool) -> bool:
    """Whether rows of a state can follow the cursor."""
    if cursor.position is None or not request.ordering.by_state:
        return True
    return rank <= cursor.position.rank if descending else rank >= cursor.position.rank


def _by_cursor(
    cursor: Cursor, positions: Sequence[Position], *, more: bool
) -> tuple[Neighbour | None, Neighbour | None]:
    """Parameters of the previous and next page of a page that was found by a cursor."""
    if not positions:
        return None, None
    has_previous = more if cursor.backwards else cursor.position is not None
    has_next = cursor.backwards or more
    return (
        {"cursor": str(Cursor(positions[0], backwards=True))} if has_previous else None,
        {"cursor": str(Cursor(positions[-1]))} if has_next else None,
    )
