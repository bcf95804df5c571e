"""Where a fault of an edited body is, to be shown beside the text."""

import re
from typing import NamedTuple

from worker.model.text import one_line

_PLACE = re.compile(r"line (\d{1,7}) column (\d{1,7})")
_AROUND = 2
_LONGEST = 300
"""Characters of a line that are shown."""


class Line(NamedTuple):
    """A line of the text near the fault."""

    number: int
    text: str
    is_faulty: bool


class Fault(NamedTuple):
    """What is wrong, and the lines around it if it is at one place."""

    message: str
    lines: tuple[Line, ...] = ()


def fault_of(message: str, text: str) -> Fault:
    """The fault that a message describes, in a text."""
    place = _PLACE.search(message)
    if place is None:
        return Fault(message)
    lines, number = text.split("\n"), int(place[1])
    around = range(max(1, number - _AROUND), min(len(lines), number + _AROUND) + 1)
    shown = ((each, one_line(lines[each - 1][:_LONGEST])) for each in around)
    return Fault(message, tuple(Line(each, line, each == number) for each, line in shown))
