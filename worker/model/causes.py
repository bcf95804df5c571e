"""Causes: what device operations that did not succeed are grouped by, from a report's code and reason.

A code is its own cause. Without one it is the reason with what differs between devices masked, so that the same
fault of many devices is one cause. Masking what is masked already changes nothing.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple, Self
from uuid import UUID

from statemachine import State

GROUPED: Final = frozenset({State.FAILURE, State.TIMEOUT, State.CANCELLED})
"""The states whose device operations are grouped by cause."""
MAX_GROUPS: Final = 1_000
"""Groups of an operation; what further causes would begin is counted as `OTHER`."""
PREFIX: Final = "reason:"
"""How causes begin that are no codes, as no code has a colon."""
OTHER: Final = f"{PREFIX}other"
"""The cause that stands for those beyond `MAX_GROUPS`."""
MAX_LENGTH: Final = 500
"""Characters of a masked reason; the rest is cut."""

_READ = 2_000
"""Characters of a reason that are read, which bounds the time."""
_PASSES = 5
"""Cutting, or a mask, may complete what a pattern looks for: a masked text is masked again until it stays."""

_QUOTED: Final = re.compile(
    r"""(?<!\w)(?:"[^"]+"|'[^']+'|`[^`]+`)(?!\w)"""
    "|\u201c[^\u201d]+\u201d|\u2018[^\u2019]+\u2019|«[^»]+»"
)
_MAY_VARY: Final = re.compile(r"[\d/\\:@]")
"""What a word has that `_PATTERNS` change."""
# Where a word has no address, each of its characters would be looked at once for each one before it: so an address
# begins where a word does, and what comes before `://` is short.
_PATTERNS: Final = {
    "uuid": r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
    "time": r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:Z|[+-]\d\d:?\d\d)?"
    r"|(?<![\w:.])\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?(?![\w:.])",
    "address": r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s<>\"']+"
    r"|(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*"
    r"|(?<![\w:-])(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}(?![\w:-])"
    r"|(?<![\w:])\[?(?=[0-9a-fA-F:]*::|(?:[0-9a-fA-F]{1,4}:){7})[0-9a-fA-F:]+(?:%\w+)?(?:\](?::\d+)?)?(?![\w:])"
    r"|(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?:[:/]\d+)?(?!\w)",
    "path": r"(?<![\w/\\<>])(?:[A-Za-z]:\\|\\\\|~?/|\.{1,2}/)[^\s:,;'\"()<>\[\]]+",
    "hex": r"0[xX][0-9a-fA-F]+|(?<![^\W_])(?=[a-fA-F]*\d)(?=\d*[a-fA-F])[0-9a-fA-F]{6,}(?![^\W_])",
    # Serial numbers: letters and digits by turns, or long ones in capitals.
    "id": r"(?<![^\W_])(?=[A-Za-z0-9]{5})[A-Za-z]*\d+[A-Za-z]+\d[A-Za-z0-9]*(?![^\W_])"
    r"|(?<![^\W_])(?=[A-Z]*\d)(?=\d*[A-Z])[A-Z0-9]{8,}(?![^\W_])",
    "number": r"(?:(?<![\w>)\]])[-+])?\d+(?:[.,]\d+)*",
}
MASK: Final = re.compile(f"<(?:text|{'|'.join(_PATTERNS)})>")
"""What stands in a masked text for what differs."""
_VARIABLE: Final = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _PATTERNS.items()))


def _named(found: re.Match[str]) -> str:
    return f"<{found.lastgroup}>"


def _mask_once(text: str) -> str:
    # Most words cannot vary: looking at them alone takes a third of the time.
    words = _QUOTED.sub("<text>", text).split()
    return " ".join(_VARIABLE.sub(_named, word) if _MAY_VARY.search(word) else word for word in words)


@lru_cache(maxsize=4_096)
def masked(reason: str) -> str:
    """A reason without what differs between devices: UUIDs, numbers, times, addresses, paths, quoted text."""
    text = reason[:_READ]
    for _ in range(_PASSES):
        before, text = text, _mask_once(text)[:MAX_LENGTH].rstrip()
        if text == before:
            break
    return text


@lru_cache(maxsize=4_096)
def cause_of_reason(reason: str) -> str:
    """The cause that a reason without a code stands for."""
    return PREFIX + blake2b(masked(reason).encode(), digest_size=8).hexdigest()


def cause(state: State, code: str | None, reason: str) -> str | None:
    """The cause of a device operation: its code, or one made of its reason; None if it is not grouped."""
    if code is not None:
        return code
    return cause_of_reason(reason) if state in GROUPED else None


_NEVER = datetime(9999, 1, 1, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC)
"""First and last time of nothing."""


class Group(NamedTuple):
    """Device operations of one state with one cause, or a change of their number."""

    devices: int
    """Number of device operations."""
    code: str | None = None
    """None where the cause is a masked reason."""
    reason: str = ""
    """Masked; of a code, that of one report."""
    example: str = ""
    """The reason of one report, cut after `MAX_LENGTH` characters."""
    first_at: datetime = _NEVER[0]
    """When the first of them reached the state."""
    last_at: datetime = _NEVER[1]

    @classmethod
    def of(cls, code: str | None, reason: str, at: datetime) -> Self:
        """The group of one report."""
        return cls(1, code, masked(reason), reason[:MAX_LENGTH], at, at)

    def plus(self, other: Self) -> Self:
        """The sum of both."""
        described = self if self.first_at <= self.last_at else other
        return described._replace(
            devices=self.devices + other.devices,
            first_at=min(self.first_at, other.first_at),
            last_at=max(self.last_at, other.last_at),
        )


LEFT: Final = Group(-1)
"""One that leaves its group."""


class GroupKey(NamedTuple):
    """What a group is of."""

    operation_id: UUID
    state: State
    cause: str


class Groups:
    """Changes of groups, added one after another: at most `MAX_GROUPS` of an operation, then `OTHER`."""

    def __init__(self, known: Iterable[GroupKey] = (), numbers: Mapping[UUID, int] | None = None) -> None:
        """Begin with groups that exist, and how many each operation has."""
        self.changes: dict[GroupKey, Group] = {}
        self._known = set(known)
        self._numbers = Counter(numbers or {})

    def add(self, key: GroupKey, group: Group) -> None:
        """Add to a group; what would be a new one beyond the limit is counted as `OTHER`."""
        if key not in self._known and key.cause != OTHER:
            if group.devices > 0 and self._numbers[key.operation_id] < MAX_GROUPS:
                self._numbers[key.operation_id] += 1
                self._known.add(key)
            else:
                self.add_other(key, group)
                return
        found = self.changes.get(key)
        self.changes[key] = group if found is None else found.plus(group)

    def add_other(self, key: GroupKey, group: Group) -> None:
        """Add to `OTHER` what has no group of its own."""
        self.add(key._replace(cause=OTHER), group._replace(code=None, reason="", example=""))
