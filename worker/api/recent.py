"""The latest changes, encoded, which all followers of a process share; of a limited size."""

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from typing import NamedTuple


class Recent(NamedTuple):
    """A change with its event."""

    position: int
    of: str
    """What it is of: the id of an operation, or the reason of dead letters."""
    type: str
    sequence: int | None
    frame: bytes


class RecentChanges:
    """Holds the latest changes up to about `size` bytes, at least the last one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0
        self._all: deque[Recent] = deque()
        self._of: defaultdict[str, deque[Recent]] = defaultdict(deque)
        self.forgotten = 0
        """The position up to which changes are not held."""

    def add(self, change: Recent) -> None:
        """Add a change, and forget the oldest ones if they are too much."""
        self._all.append(change)
        self._of[change.of].append(change)
        self._held += len(change.frame)
        while self._held > self._size and len(self._all) > 1:
            oldest = self._all.popleft()
            theirs = self._of[oldest.of]
            theirs.popleft()
            if not theirs:
                del self._of[oldest.of]
            self._held -= len(oldest.frame)
            self.forgotten = oldest.position

    def clear(self, position: int) -> None:
        """Forget all, and hold what comes after a position."""
        self._all.clear()
        self._of.clear()
        self._held, self.forgotten = 0, position

    def since(self, position: int, of: str | None) -> Iterator[Recent]:
        """The changes from a position on; of one operation if it is given."""
        found = self._all if of is None else self._of.get(of, deque())
        return islice(found, bisect_left(found, position, key=attrgetter("position")), None)
