"""Pages of operations and of device operations: the same cost at any size, in every order, of every state.

Every index begins with the state, so that few serve all orders and filters: a page over several states merges a
page of each. Where a page is deep, a cursor finds it by what its first row has, an offset by counting up to it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, NamedTuple, Self, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, and_, literal, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

Result = TypeVar("Result")
Other = TypeVar("Other")

LIMIT = 20
"""Rows on a page that was not told how many."""
MAX_LIMIT = 500
MAX_OFFSET = 10**12

CURSOR_PATTERN = r"^((after|before)\.[0-9]{1,2}\.[0-9]{1,18}\.[0-9a-f]{32})?$"
"""A row's place: its state's rank, its time in microseconds since the year 1 (UTC), and its id.

An empty one is the place before the first row.
"""

_MICROSECOND = timedelta(microseconds=1)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Ordering(StrEnum):
    """What rows are ordered by. Rows of one state are ordered by creation; what is equal still, by id."""

    CREATED_AT = "created_at"
    CREATED_AT_DESCENDING = "-created_at"
    STATE = "state"
    STATE_DESCENDING = "-state"
    UPDATED_AT = "updated_at"
    UPDATED_AT_DESCENDING = "-updated_at"

    @property
    def is_descending(self) -> bool:
        """Whether the greatest comes first."""
        return self.startswith("-")

    @property
    def by_state(self) -> bool:
        """Whether states come one after another."""
        return self.endswith("state")

    @property
    def time(self) -> str:
        """The column of the time that rows, or those of one state, are ordered by."""
        return "updated_at" if self.endswith("updated_at") else "created_at"


class Place(NamedTuple):
    """Where a row stands in an order."""

    rank: int
    """Of its state, among all."""
    time: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Cursor:
    """A page's beginning, or with `backwards` its end: the row beside it."""

    place: Place | None
    backwards: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `CURSOR_PATTERN` matches; every text that it matches is a place. Raises ValueError."""
        if not re.fullmatch(CURSOR_PATTERN, text):
            raise ValueError("is not a cursor that a page gave")
        if not text:
            return cls(None)
        direction, rank, microseconds, id_ = text.split(".")
        time = min(_FIRST + int(microseconds) * _MICROSECOND, _LAST) if _fits(int(microseconds)) else _LAST
        return cls(Place(int(rank), time, UUID(id_)), direction == "before")

    def __str__(self) -> str:
        if self.place is None:
            return ""
        rank, time, id_ = self.place
        return f"{'before' if self.backwards else 'after'}.{rank}.{(time - _FIRST) // _MICROSECOND}.{id_.hex}"


def _fits(microseconds: int) -> bool:
    return microseconds <= (_LAST - _FIRST) // _MICROSECOND


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of the rows is wanted, in which order. A cursor takes the offset's place."""

    limit: int = LIMIT
    offset: int = 0
    ordering: Ordering = Ordering.CREATED_AT
    cursor: Cursor | None = None


Neighbour = Mapping[str, str | int]
"""The parameters by which a page differs from the one beside it."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Result]):
    """One page: the number of rows on all, those on this one, and its neighbours, None at the ends."""

    count: int
    results: Sequence[Result]
    previous: Neighbour | None
    next: Neighbour | None

    def holding(self, results: Sequence[Other]) -> "Page[Other]":
        """The same page with other results, such as the rows of its ids."""
        return Page(self.count, results, self.previous, self.next)


async def find(
    connection: AsyncConnection,
    table: Table,
    scope: ColumnElement[bool],
    counts: Mapping[Any, int],
    states: Sequence[Any],
    window: Window,
) -> Page[UUID]:
    """The ids on a page of a table's rows in scope.

    `counts` has the number of rows in each wanted state; `states` are all that there are, in their order.
    """
    count = sum(counts.values())
    cursor = window.cursor or Cursor(None)
    descending = window.ordering.is_descending != cursor.backwards
    branches = [
        _of_state(table, scope, rank, state, window, cursor, descending)
        for rank, state in enumerate(states)
        if counts.get(state) and _is_beyond(rank, window, cursor, descending)
    ]
    places: list[Place] = []
    if branches:
        merged = union_all(*(select(branch.subquery()) for branch in branches)).subquery().c
        keys = [merged.rank, merged.time, merged.id] if window.ordering.by_state else [merged.time, merged.id]
        query = select(merged.rank, merged.time, merged.id).order_by(
            *(key.desc() if descending else key for key in keys)
        )
        query = query.limit(window.limit + 1).offset(0 if window.cursor else window.offset)
        places = [Place(*row) for row in await connection.execute(query)]
    more = len(places) > window.limit
    places = places[: window.limit]
    if cursor.backwards:
        places.reverse()
    beside = (
        _by_cursor(cursor, places, more=more) if window.cursor else neighbours(window.limit, window.offset, count)
    )
    return Page(count, [place.id for place in places], *beside)


def _of_state(
    table: Table,
    scope: ColumnElement[bool],
    rank: int,
    state: Any,
    window: Window,
    cursor: Cursor,
    descending: bool,
) -> Select[Any]:
    time, id_ = table.c[window.ordering.time], table.c.id
    condition = and_(scope, table.c.state == state)
    if cursor.place is not None and (rank == cursor.place.rank or not window.ordering.by_state):
        place = tuple_(literal(cursor.place.time, time.type), literal(cursor.place.id, id_.type))
        row = tuple_(time, id_)
        condition &= row < place if descending else row > place
    return (
        select(literal(rank).label("rank"), time.label("time"), id_.label("id"))
        .where(condition)
        .order_by(time.desc() if descending else time, id_.desc() if descending else id_)
        .limit(window.limit + 1 + (0 if window.cursor else window.offset))
    )


def _is_beyond(rank: int, window: Window, cursor: Cursor, descending: bool) -> bool:
    """Whether rows of a state can come after the cursor."""
    if cursor.place is None or not window.ordering.by_state:
        return True
    return rank <= cursor.place.rank if descending else rank >= cursor.place.rank


def neighbours(limit: int, offset: int, count: int) -> tuple[Neighbour | None, Neighbour | None]:
    """The pages before and after the one at an offset, of `count` rows."""
    return (
        {"limit": limit, "offset": max(0, offset - limit)} if offset else None,
        {"limit": limit, "offset": offset + limit} if offset + limit < count else None,
    )


def _by_cursor(
    cursor: Cursor, places: Sequence[Place], *, more: bool
) -> tuple[Neighbour | None, Neighbour | None]:
    """There is something where the cursor came from, except before the first row; beyond it if there is more."""
    if not places:
        return None, None
    has_previous = more if cursor.backwards else cursor.place is not None
    has_next = cursor.backwards or more
    return (
        {"cursor": str(Cursor(places[0], backwards=True))} if has_previous else None,
        {"cursor": str(Cursor(places[-1]))} if has_next else None,
    )
