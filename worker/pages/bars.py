"""The bar of an operation: the parts of its device operations, in the fixed order of its colours."""

from collections.abc import Sequence
from typing import NamedTuple

from statemachine import State
from worker.store.documents import Progress

WIDTH = 1_000
"""Units of a bar."""
NARROWEST = 8
"""Units of a part that has any device operation, so that one of a million is seen."""


class Part(NamedTuple):
    """A part of a bar: its class in the style sheet, its name for people, its number, its place in units."""

    kind: str
    name: str
    number: int
    x: int
    width: int


class Bar(NamedTuple):
    """A bar: all five parts, those of no width included."""

    parts: Sequence[Part]
    total: int
    """Device operations that are registered, or the announced number if that is larger."""

    @property
    def settled(self) -> int:
        """The number of settled device operations."""
        return sum(part.number for part in self.parts[:-1])

    @property
    def in_words(self) -> str:
        """The text alternative."""
        named = ", ".join(f"{part.number:,} {part.name}" for part in self.parts if part.number)
        return f"{named or 'no device'}; {self.total:,} in all"


def bar_of(progress: Progress) -> Bar:
    """The bar of an operation; devices that are announced and not registered yet are open."""
    counters = progress.counters
    numbers = [
        ("good", "settled well", counters.in_state(State.SUCCESS) + counters.in_state(State.COMPLETED)),
        ("failed", "failed", counters.in_state(State.FAILURE)),
        ("timed-out", "timed out", counters.in_state(State.TIMEOUT)),
        ("cancelled", "cancelled", counters.in_state(State.CANCELLED)),
    ]
    total = max(counters.resolved_device_count, progress.expected or 0)
    numbers.append(("open", "open", total - sum(number for *_, number in numbers)))
    parts, x = [], 0
    for (kind, name, number), width in zip(numbers, _widths([each[-1] for each in numbers]), strict=True):
        parts.append(Part(kind, name, number, x, width))
        x += width
    return Bar(parts, total)


def _widths(numbers: Sequence[int]) -> list[int]:
    """Units of each part, together `WIDTH`, or 0 without any number; the widest gives to the narrow ones."""
    total = sum(numbers)
    if not total:
        return [0] * len(numbers)
    widths = [max(number * WIDTH // total, NARROWEST) if number else 0 for number in numbers]
    widths[widths.index(max(widths))] += WIDTH - sum(widths)
    return widths
