"""Pages of lists: what is asked for, by offset or cursor, and what is found."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Generic, NamedTuple, Self, TypeVar
from uuid import UUID

Result = TypeVar("Result")
Other = TypeVar("Other")

LIMIT = 20
"""Default number of rows on a page."""
MAX_LIMIT = 500
MAX_OFFSET = 10**12

CURSOR_PATTERN = r"^((after|before)\.[0-9]{1,2}\.[0-9]{1,18}\.[0-9a-f]{32})?$"
"""Direction, rank of the state, time in microseconds since year 1 (UTC) and id of a row.

The empty cursor is the position before the first row.
"""

_MICROSECOND = timedelta(microseconds=1)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Ordering(StrEnum):
    """Sort order of a page. Rows of one state are sorted by creation, ties by id."""

    CREATED_AT = "created_at"
    CREATED_AT_DESCENDING = "-created_at"
    STATE = "state"
    STATE_DESCENDING = "-state"
    UPDATED_AT = "updated_at"
    UPDATED_AT_DESCENDING = "-updated_at"

    @property
    def is_descending(self) -> bool:
        """Whether the order is descending."""
        return self.startswith("-")

    @property
    def by_state(self) -> bool:
        """Whether rows are sorted by state first."""
        return self.endswith("state")

    @property
    def time(self) -> str:
        """The name of the timestamp column that rows, or the rows of one state, are sorted by."""
        return "updated_at" if self.endswith("updated_at") else "created_at"


class Position(NamedTuple):
    """Sort key of a row."""

    rank: int
    """Index of the state among all states."""
    time: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Cursor:
    """The row before the first one of a page; with `backwards` the row after the last one."""

    position: Position | None
    backwards: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a cursor. Any text that matches `CURSOR_PATTERN` is valid; raises ValueError otherwise."""
        if not re.fullmatch(CURSOR_PATTERN, text):
            raise ValueError("is not a cursor from `next` or `previous` of a page")
        if not text:
            return cls(None)
        direction, rank, microseconds, id_ = text.split(".")
        time = min(_FIRST + int(microseconds) * _MICROSECOND, _LAST) if _fits(int(microseconds)) else _LAST
        return cls(Position(int(rank), time, UUID(id_)), direction == "before")

    def __str__(self) -> str:
        if self.position is None:
            return ""
        rank, time, id_ = self.position
        return f"{'before' if self.backwards else 'after'}.{rank}.{(time - _FIRST) // _MICROSECOND}.{id_.hex}"


def _fits(microseconds: int) -> bool:
    return microseconds <= (_LAST - _FIRST) // _MICROSECOND


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Size, start and order of a page. A cursor replaces the offset."""

    limit: int = LIMIT
    offset: int = 0
    ordering: Ordering = Ordering.CREATED_AT
    cursor: Cursor | None = None


Neighbour = Mapping[str, str | int]
"""Query parameters of the previous or next page."""


@dataclass(frozen=True, slots=True)
class PageResult(Generic[Result]):
    """Rows of one page, the number of rows on all pages, and the adjacent pages, None at the ends."""

    count: int
    results: Sequence[Result]
    previous: Neighbour | None
    next: Neighbour | None

    def with_results(self, results: Sequence[Other]) -> "PageResult[Other]":
        """The same page with other results, such as documents in place of ids."""
        return PageResult(self.count, results, self.previous, self.next)


def neighbours(limit: int, offset: int, count: int) -> tuple[Neighbour | None, Neighbour | None]:
    """Parameters of the previous and next page of the page at an offset, of `count` rows in all."""
    return (
        {"limit": limit, "offset": max(0, offset - limit)} if offset else None,
        {"limit": limit, "offset": offset + limit} if offset + limit < count else None,
    )
