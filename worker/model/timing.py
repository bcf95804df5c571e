"""Timeouts and abort thresholds of operations: as announced, as stored, and as they hold.

What an announcement does not name comes from the setting `DEVICEOPS_TIMEOUTS`.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from statemachine import AbortAction, Kind, Threshold, Timeouts
from worker.model.numbers import Integral

MAX_TIMEOUT = 10 * 366 * 86_400
"""Seconds: ten years."""
SERVICE = "deviceops"
"""The `service_id` of the reports of timeouts, and of cancellations upon an abort."""
EVERY_TYPE = "*"
"""Key of the timeouts of operation types without timeouts of their own."""
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def milliseconds(moment: datetime) -> int:
    """A moment as milliseconds since 1970."""
    return (moment - _FIRST) // _MILLISECOND


def moment(since: int) -> datetime:
    """A moment, from milliseconds since 1970."""
    return _FIRST + since * _MILLISECOND


Seconds = Annotated[float, Field(gt=0, le=MAX_TIMEOUT, allow_inf_nan=False)]


class AnnouncedTimeouts(BaseModel):
    """Seconds after which a device operation that is not settled is timed out; fractions are allowed."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    pending: Annotated[
        Seconds | None, Field(description="Since its registration, while it is not dispatched.")
    ] = None
    in_progress: Annotated[Seconds | None, Field(description="Since it became dispatched.")] = None
    step: Annotated[
        Seconds | None, Field(description="Since its last accepted report, once it is dispatched.")
    ] = None
    total: Annotated[Seconds | None, Field(description="Since its registration.")] = None


class AnnouncedAbort(BaseModel):
    """When an operation is stopped because too many devices fail."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    failed_percent: Annotated[
        float,
        Field(
            ge=1,
            le=100,
            allow_inf_nan=False,
            description="Of the settled device operations, those in FAILURE or TIMEOUT, in percent.",
        ),
    ]
    min_settled: Annotated[
        int,
        Field(ge=1, lt=2**31, description="Device operations that have to be settled before it can be crossed."),
        Integral,
    ]
    action: Annotated[
        Literal["cancel", "notify"],
        Field(description="cancel: everything that is not settled becomes CANCELLED; notify: nothing changes."),
    ]

    @property
    def text(self) -> str:
        """As it is stored."""
        return self.model_dump_json()


class Timing(NamedTuple):
    """The timeouts of an operation as they are stored, all as announced."""

    timeouts: str | None = None
    """JSON of seconds by kind."""
    deadline: int | None = None
    """Milliseconds since 1970."""
    schedule_end: int | None = None
    """The same: `end_datetime` of the schedule."""

    def updated(self, other: "Timing") -> "Timing":
        """With what a later announcement names."""
        return Timing(
            self.timeouts if other.timeouts is None else other.timeouts,
            self.deadline if other.deadline is None else other.deadline,
            self.schedule_end if other.schedule_end is None else other.schedule_end,
        )


class Defaults(BaseModel):
    """The settings that apply to operations whose announcements name no timeouts."""

    model_config = ConfigDict(frozen=True)

    timeouts: Mapping[str, AnnouncedTimeouts] = {}
    """By operation type; EVERY_TYPE for the others."""
    schedule_ends: bool = False
    """Whether the end of a schedule is a deadline."""

    @property
    def text(self) -> str:
        """Equal for equal settings."""
        named = dict(sorted(self.timeouts.items()))
        return self.model_copy(update={"timeouts": named}).model_dump_json(exclude_none=True)


_defaults = Defaults()
"""Global, as every transaction of a process has the same."""


def set_defaults(defaults: Defaults) -> None:
    """Set the settings that this process applies."""
    global _defaults
    _defaults = defaults
    effective.cache_clear()


def defaults() -> Defaults:
    """The settings that this process applies."""
    return _defaults


@lru_cache(maxsize=4_096)
def effective(timing: Timing, operation_type: str | None) -> Timeouts | None:
    """The timeouts that hold for an operation; None if it has none."""
    by_type = _defaults.timeouts
    otherwise = by_type.get(operation_type or "") or by_type.get(EVERY_TYPE) or AnnouncedTimeouts()
    named = AnnouncedTimeouts.model_validate_json(timing.timeouts or "{}")
    ends = [timing.deadline, timing.schedule_end if _defaults.schedule_ends else None]
    deadline = min((end for end in ends if end is not None), default=None)
    by_kind = {name: _of(named, otherwise, name) for name in AnnouncedTimeouts.model_fields}
    found = Timeouts(**by_kind, deadline=deadline)
    return found if any(each is not None for each in found) else None


def _of(named: AnnouncedTimeouts, otherwise: AnnouncedTimeouts, name: str) -> int | None:
    seconds = getattr(named, name)
    if seconds is None:
        seconds = getattr(otherwise, name)
    return None if seconds is None else max(math.ceil(1_000 * seconds), 1)


@lru_cache(maxsize=4_096)
def threshold(text: str) -> Threshold:
    """A threshold as it is stored."""
    stored = AnnouncedAbort.model_validate_json(text)
    return Threshold(stored.failed_percent, stored.min_settled, AbortAction(stored.action))


class Tripped(BaseModel):
    """The numbers with which a threshold was crossed."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    settled: int
    failed: int

    def in_words(self, crossed: Threshold) -> str:
        """What was crossed, for people."""
        percent = 100 * self.failed / self.settled
        what = "aborted" if crossed.action is AbortAction.CANCEL else "abort threshold crossed"
        return (
            f"{what}: {self.failed:,} of {self.settled:,} settled device operations failed ({percent:.3g}%); the "
            f"threshold is {crossed.failed_percent:g}% of at least {crossed.min_settled:,} ({crossed.action})"
        )

    @classmethod
    def read(cls, text: str) -> Self:
        """As it is stored."""
        return cls.model_validate_json(text)


def reason_of(kind: Kind, timeouts: Timeouts) -> str:
    """Why a device operation was timed out, for people."""
    if kind is Kind.DEADLINE:
        return f"timed out: not settled by the deadline {moment(timeouts.deadline or 0):%Y-%m-%dT%H:%M:%SZ}"
    after = in_words(getattr(timeouts, kind.value))
    return f"timed out: {_REASONS[kind].format(after)}"


_REASONS = {
    Kind.PENDING: "not dispatched within {} of its registration",
    Kind.IN_PROGRESS: "not settled within {} of being dispatched",
    Kind.STEP: "no report for {}",
    Kind.TOTAL: "not settled within {} of its registration",
}


def in_words(milliseconds_: int) -> str:
    """A duration for people, such as `90 s` or `2 h`."""
    seconds = milliseconds_ / 1_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
