"""Times and durations on the command line."""

import re
from datetime import UTC, datetime, timedelta

import typer
from pydantic import TypeAdapter, ValidationError

LONGEST = timedelta(days=100_000)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_moment = TypeAdapter(datetime)


def age(text: str) -> timedelta:
    """Parse a duration such as 30m, 12h, 7d or 2w. Raises BadParameter."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else LONGEST
    if length >= LONGEST:
        raise typer.BadParameter(f"{text!r} is not a duration: a number and s, m, h, d or w, such as 7d")
    return length


def moment(text: str) -> datetime:
    """Parse a time (RFC 3339 or a date, UTC by default) or an age such as 2h. Raises BadParameter."""
    if text[-1:] in _UNITS:
        return datetime.now(UTC) - age(text)
    try:
        # Pydantic takes digits alone for seconds since 1970; here they are an error.
        found = _moment.validate_python("" if text.isdecimal() else text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValidationError, OverflowError):
        message = f"{text!r} is not a time: write 2026-01-31, 2026-01-31T08:00:00Z, or 2h for two hours ago"
        raise typer.BadParameter(message) from None
