"""How many device operations of an operation settled in each minute, as texts of an hour each: `0=12 1=7`.

An entry is a minute of the hour and a number, at most 22 bytes. An hour that is thinned has one entry, for all of
it: `*=19`. A text may have several entries of one minute, which count together.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MILLISECONDS = 60_000
"""Of a minute."""
HOUR = 60
"""Minutes."""
_WHOLE = "*"


class Settled(NamedTuple):
    """How many device operations settled from one minute on."""

    minute: int
    """Since 1970, by the database's clock."""
    number: int
    minutes: int = 1
    """For how long: 1, or an hour that is thinned."""


def entry(minute: int, number: int) -> tuple[int, str]:
    """The hour of a minute, both since 1970, and its entry there."""
    return minute // HOUR, f"{minute % HOUR}={number}"


def thinned(text: str) -> str:
    """The text of an hour with one entry for all of it."""
    return f"{_WHOLE}={sum(number for _, number in _entries(text))}"


def read(hours: Iterable[tuple[int, str]]) -> list[Settled]:
    """What is in the texts of hours, in order; an hour that is thinned in part counts as a whole."""
    found: Counter[tuple[int, int]] = Counter()
    for hour, text in hours:
        is_thinned = text.startswith(_WHOLE)
        for minute, number in _entries(text):
            found[(hour * HOUR, HOUR) if is_thinned else (hour * HOUR + int(minute), 1)] += number
    return [Settled(minute, number, minutes) for (minute, minutes), number in sorted(found.items())]


def _entries(text: str) -> Iterator[tuple[str, int]]:
    for each in text.split():
        minute, number = each.split("=")
        yield minute, int(number)
