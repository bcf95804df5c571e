"""Timestamps as senders write them (RFC 3339, leap seconds included), in UTC."""

import re
from datetime import UTC, datetime, timedelta

from pydantic_core import SchemaValidator, core_schema

_FIRST = datetime.min.replace(tzinfo=UTC) + timedelta(milliseconds=1)
_LAST = datetime.max.replace(tzinfo=UTC) - timedelta(milliseconds=1)
"""The first and the last representable time are infinities to PostgreSQL's driver; the first is Go's zero time.

What lies beyond them becomes them: .NET's zero time is that of its own zone, which may be before the year 1.
"""
_aware = SchemaValidator(core_schema.datetime_schema(tz_constraint="aware")).validate_python
_NO_TIME = "no RFC 3339 time such as 2026-01-31T08:00:00Z"
_LEAP = re.compile(r"(?P<minute>.{16}):60(?P<rest>.*)", re.DOTALL)
"""A leap second counts as the second after it, as in Unix time."""

_HOURS_AND_MINUTES = "([01][0-9]|2[0-3]):[0-5][0-9]"
PATTERN = (
    "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]"
    f"{_HOURS_AND_MINUTES}(:([0-5][0-9]|60)([.,][0-9]+)?)?"
    f"([Zz]|[-+\N{MINUS SIGN}]{_HOURS_AND_MINUTES.replace(':', ':?')})$"
)
"""For JSON Schema: `format` is less precise, and few validators check it."""


def as_moment(value: object) -> datetime:
    """Parse a timestamp. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(_NO_TIME)  # noqa: TRY004  # of the value, as validators have it
    # As usual, in a third of the time; but for the hour 24, which Python takes from 3.14 on.
    if value[-1:] == "Z" and value[-2:-1].isdigit() and value[4:17:3] == "--T::" and value[11:13] != "24":
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            pass  # a leap second, or no time
        else:
            if 1 < moment.year < _LAST.year:
                return moment
    # Pydantic alone would also accept digits, as seconds since 1970.
    if value[10:11] not in ("T", "t", " "):
        raise ValueError(_NO_TIME)
    if ":60" in value and (leap := _LEAP.fullmatch(value)):
        second_before: datetime = _aware(f"{leap['minute']}:59{leap['rest']}")
        return _bounded(second_before, timedelta(seconds=1))
    moment = _aware(value)
    return _bounded(moment)


def _bounded(moment: datetime, later: timedelta = timedelta(0)) -> datetime:
    try:
        moment = moment.astimezone(UTC) + later
    except OverflowError:
        return _FIRST if moment < _FIRST else _LAST
    return moment if _FIRST <= moment <= _LAST else min(max(moment, _FIRST), _LAST)
