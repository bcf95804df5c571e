"""Dead letters grouped by their reason and their detail, in which what differs between messages is masked.

A group is what the filters `reason` and `detail` select, so that its number is that of the list.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Subquery, and_, func, not_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.causes import MASK, masked
from worker.model.outcomes import Reason
from worker.store import dead_letters as letters
from worker.store.selection import MAX_DETAIL, Selection, has_detail
from worker.store.tables import dead_letters

READ = 1_000
"""Different details that are read at a time, the most frequent ones."""
ROUNDS = 2
"""How often the rest is read without the groups that were found."""
_LEFT_OUT = 10
_MOST = 20
"""Groups that are looked at."""
_CUT = 400
"""Characters of a masked detail, which is shorter than `MAX_DETAIL`."""

_c = dead_letters.c


class DetailGroup(NamedTuple):
    """Dead letters of one reason with one detail."""

    reason: Reason
    detail: str
    """Masked where several details are one group. Longer than `MAX_DETAIL`, it is no filter."""
    number: int
    """Of dead letters."""
    oldest: datetime
    newest: datetime

    @property
    def is_filter(self) -> bool:
        """Whether a filter can select it."""
        return len(self.detail) <= MAX_DETAIL


def grouped_as(detail: str) -> str:
    """The detail of the group that a detail is in; itself if no mask stands for what is masked."""
    found = masked(detail)
    if len(found) > _CUT:
        found = f"{found[:_CUT].rpartition(' ')[0]} <text>"
    return found if _is_of(found, detail) else detail


def _is_of(group: str, detail: str) -> bool:
    """Whether a detail is in a group, as the filter decides it. In linear time: details are from outside."""
    first, *others = MASK.split(group)
    if not others:
        return detail == group
    *between, last = others
    at, end = len(first), len(detail) - len(last)
    if not detail.startswith(first) or not detail.endswith(last):
        return False
    for each in between:
        if (found := detail.find(each, at)) < 0:
            return False
        at = found + len(each)
    return at <= end


async def by_detail(
    connection: AsyncConnection, selection: Selection, limit: int, within: int | None = None
) -> Sequence[DetailGroup]:
    """The `limit` largest groups of the selected dead letters; `within` is as for `store.dead_letters.count`."""
    counted = letters.among(selection, within, _c.reason, _c.detail, _c.received_at)
    found = await _read(connection, counted, ())
    groups = _merged(found)
    if len(found) < READ:
        return [_summed(reason, detail, found) for reason, detail in groups[:limit]]
    # Many different details of a few groups hide others: what is left without these groups is read then.
    for _ in range(ROUNDS):
        more = await _read(connection, counted, groups[:_LEFT_OUT])
        groups = _apart([*groups[:_LEFT_OUT], *_merged(more), *groups[_LEFT_OUT:]])[:_MOST]
        if len(more) < READ:
            break
    numbered = await _counted(connection, counted, groups)
    return sorted(numbered, key=lambda group: -group.number)[:limit]


async def _read(
    connection: AsyncConnection, counted: Subquery, left_out: Sequence[tuple[Reason, str]]
) -> Sequence[Row[Any]]:
    """The most frequent details, without those of some groups."""
    column, number = counted.c, func.count().label("number")
    query = (
        select(
            column.reason,
            column.detail,
            number,
            func.min(column.received_at).label("oldest"),
            func.max(column.received_at).label("newest"),
        )
        .where(*(not_(_selects(counted, *key)) for key in left_out))
        .group_by(column.reason, column.detail)
        .order_by(number.desc(), column.reason, column.detail)
        .limit(READ)
    )
    return (await connection.execute(query)).all()


def _selects(counted: Subquery, reason: Reason, detail: str) -> ColumnElement[bool]:
    """The condition of a group, as its filters have it."""
    return and_(counted.c.reason == reason, has_detail(counted.c.detail, detail))


def _merged(found: Sequence[Row[Any]]) -> list[tuple[Reason, str]]:
    """The groups of details, the largest first; one that is part of a larger one is no group of its own."""
    numbers: dict[tuple[Reason, str], int] = {}
    for row in found:
        key = Reason(row.reason), grouped_as(row.detail)
        numbers[key] = numbers.get(key, 0) + row.number
    return _apart(sorted(numbers, key=lambda key: (-numbers[key], key))[:_MOST])


def _apart(keys: Iterable[tuple[Reason, str]]) -> list[tuple[Reason, str]]:
    groups: list[tuple[Reason, str]] = []
    for reason, detail in keys:
        if not any(reason is of and _is_of(group, detail) for of, group in groups):
            groups.append((reason, detail))
    return groups


def _summed(reason: Reason, detail: str, found: Sequence[Row[Any]]) -> DetailGroup:
    """The group of all rows that its filter selects."""
    rows = [row for row in found if row.reason == reason and _is_of(detail, row.detail)]
    return DetailGroup(
        reason,
        detail,
        sum(row.number for row in rows),
        min(row.oldest for row in rows),
        max(row.newest for row in rows),
    )


async def _counted(
    connection: AsyncConnection, counted: Subquery, keys: Sequence[tuple[Reason, str]]
) -> list[DetailGroup]:
    """The groups, counted by their filters."""
    columns: list[Any] = []
    for key in keys:
        is_in = _selects(counted, *key)
        columns += [
            func.count().filter(is_in),
            func.min(counted.c.received_at).filter(is_in),
            func.max(counted.c.received_at).filter(is_in),
        ]
    [row] = (await connection.execute(select(*columns))).all()
    return [
        DetailGroup(reason, detail, *row[3 * index : 3 * index + 3]) for index, (reason, detail) in enumerate(keys)
    ]
