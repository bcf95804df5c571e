"""What the upper part of an operation's page says: how far it is, why devices failed, and what it waits for."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import Depends, Path
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import SETTLED, Counters, Kind, State, Threshold, Timeouts, contribution, failed
from worker.api.responses import ApiError
from worker.model.id_range import parsed_uuid
from worker.model.text import one_line, shown
from worker.model.timing import effective, in_words, moment, threshold
from worker.pages.operation.chart import chart_of, period_in_words
from worker.store import due, minutes, overview, reason_groups
from worker.store.overview import OperationRow

OPEN = tuple(sorted(set(State) - SETTLED))
STATES = (*OPEN, State.SUCCESS, State.COMPLETED, State.FAILURE, State.TIMEOUT, State.CANCELLED)
"""As people read them: as a device passes through them, then those that are settled, the good ones first."""
GROUPS = 10
"""Groups of reasons on a page of them."""


def _operation_id(operation_id: Annotated[str, Path()]) -> UUID:
    try:
        return parsed_uuid(operation_id)
    except ValueError:
        message = f"{one_line(shown(operation_id))} is not the id of an operation."
        raise ApiError(HTTPStatus.NOT_FOUND, message) from None


OperationId = Annotated[UUID, Depends(_operation_id)]


class Limit(NamedTuple):
    """A timeout in words, which the moment completes if there is one."""

    name: str
    at: datetime | None = None


class Nearness(NamedTuple):
    """How near an operation is to its abort threshold."""

    threshold: Threshold
    failed: int
    settled: int
    further: int | None
    """Failures one after another with which it is crossed; None if what is open cannot cross it."""

    @property
    def percent(self) -> float:
        """Of the settled device operations, those that failed."""
        return 100 * self.failed / self.settled if self.settled else 0.0


async def row_of(connection: AsyncConnection, operation_id: UUID) -> OperationRow:
    """An operation, and how it goes. Raises ApiError (404) if it is unknown."""
    rows = await overview.rows(connection, [operation_id])
    if not rows:
        raise ApiError(HTTPStatus.NOT_FOUND, f"There is no operation {operation_id}.")
    return rows[0]


async def going(connection: AsyncConnection, operation_id: UUID, offset: int) -> Mapping[str, Any]:
    """Values of `operation_going.html`; reasons from the group at `offset` on. Raises ApiError (404)."""
    row = await row_of(connection, operation_id)
    counters = row.progress.counters
    course = await minutes.course_of(connection, operation_id)
    timing, operation_type = await due.timing_of(connection, operation_id)
    abort, tripped = await due.abort_of(connection, operation_id)
    groups = await reason_groups.page(connection, operation_id, GROUPS, offset)
    is_near = abort is not None and tripped is None
    unregistered = row.progress.unregistered
    return {
        "row": row,
        "id": operation_id,
        "counters": counters,
        "by_state": [(state, counters.in_state(state)) for state in STATES],
        "open_states": [(state, number) for state in OPEN if (number := counters.in_state(state))],
        "open": row.progress.open,
        "unregistered": unregistered,
        "chart": None if course is None else chart_of(course),
        "period_in_words": period_in_words,
        "limits": limits(effective(timing, operation_type)),
        "nearness": nearness(threshold(abort), counters, unregistered) if abort is not None and is_near else None,
        "groups": groups.results,
        "number_of_groups": groups.count,
        "groups_from": offset,
        "groups_size": GROUPS,
        "most_parked": overview.MOST_PARKED,
    }


def limits(timeouts: Timeouts | None) -> Sequence[Limit]:
    """The timeouts that hold, for people."""
    if timeouts is None:
        return ()
    named = ((text, getattr(timeouts, kind.value)) for kind, text in _LIMITS.items())
    found = [Limit(text.format(in_words(value))) for text, value in named if value is not None]
    return found if timeouts.deadline is None else [*found, Limit("settled by", moment(timeouts.deadline))]


_LIMITS = {
    Kind.PENDING: "dispatched within {} of its registration",
    Kind.IN_PROGRESS: "settled within {} of being dispatched",
    Kind.STEP: "a report every {}, once dispatched",
    Kind.TOTAL: "settled within {} of its registration",
}


def nearness(limit: Threshold, counters: Counters, unregistered: int) -> Nearness:
    """How near the counters are to a threshold that is not crossed yet."""
    settled, bad = counters.settled_device_count, failed(counters)
    left = counters.resolved_device_count - settled + unregistered
    percent, further = limit.failed_percent, max(limit.min_settled - settled, 1)
    if percent < 100:
        further = max(further, math.ceil((percent * settled - 100 * bad) / (100 - percent)))
    elif bad < settled:
        return Nearness(limit, bad, settled, None)

    def is_crossed_by(failures: int) -> bool:
        return limit.is_crossed(counters.plus(contribution(State.FAILURE, True), failures))

    # A division of floating-point numbers may be off by one.
    while not is_crossed_by(further):
        further += 1
    while further > 1 and is_crossed_by(further - 1):
        further -= 1
    return Nearness(limit, bad, settled, further if further <= left else None)
