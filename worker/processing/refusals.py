"""Isolates the device operations that the database refuses to change, so that they do not hold up the others.

Such as one for which a trigger raises an error. A portion that is refused is tried again in halves, until the one
that is refused is alone. It is logged, and left out for a while.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import structlog

from worker.processing.write_probe import is_refused_alone
from worker.store.database import Database
from worker.store.errors import one_line_error

PAUSE = 60
"""Seconds for which one that was refused is left out."""
MOST = 1_000
"""Device operations that are left out at a time; if more are refused, that is no matter of single ones."""

_log = structlog.get_logger()


class DeviceOperation(Protocol):
    """What is logged of one."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def operation_id(self) -> UUID:
        """The id of its operation."""

    @property
    def device_id(self) -> UUID:
        """The id of its device."""


@dataclass(slots=True)
class Portion:
    """Device operations that one transaction changes."""

    size: int
    """How many, at most."""
    left_out: Collection[UUID] = ()
    taken: Sequence[DeviceOperation] = ()
    """Set by the transaction, before it changes them."""
    is_refused: bool = False


@dataclass(slots=True)
class Refusals:
    """Portions of one kind of work; `event` is logged with each device operation that the database refuses."""

    database: Database
    event: str
    most: int
    """Device operations of a portion."""
    _size: int = field(init=False)
    _refused: dict[UUID, tuple[float, UUID]] = field(default_factory=dict)
    """Until when each is left out, by the loop's clock, and its operation."""

    def __post_init__(self) -> None:
        self._size = self.most

    @property
    def count(self) -> int:
        """How many are refused."""
        return len(self._refused)

    def passed(self) -> Mapping[UUID, Sequence[UUID]]:
        """Those whose pause has passed, by operation: they are left out no longer."""
        now = _now()
        found: dict[UUID, list[UUID]] = {}
        for id_, (until, operation_id) in self._refused.items():
            if until <= now:
                found.setdefault(operation_id, []).append(id_)
        return found

    def forget(self, ids: Iterable[UUID] | None = None) -> None:
        """Count those no more, or all, whose pause has passed: who is refused again has another one."""
        now = _now()
        for id_ in [*self._refused] if ids is None else ids:
            if self._refused[id_][0] <= now:
                del self._refused[id_]

    @asynccontextmanager
    async def isolating(self) -> AsyncIterator[Portion]:
        """A block that takes a portion in a transaction; does not raise what the database refuses of its data."""
        now = _now()
        portion = Portion(self._size, [id_ for id_, (until, _) in self._refused.items() if now < until])
        try:
            yield portion
        except Exception as error:
            is_bounded = len(self._refused) < MOST
            if not (portion.taken and is_bounded and await is_refused_alone(self.database, error)):
                raise
            portion.is_refused = True
            self._halve(portion.taken, error)
        else:
            self._size = min(2 * self._size, self.most)

    def _halve(self, taken: Sequence[DeviceOperation], error: Exception) -> None:
        if len(taken) > 1:
            self._size = len(taken) // 2
            return
        [refused] = taken
        self._refused[refused.id] = _now() + PAUSE, refused.operation_id
        _log.error(
            self.event,
            operation_id=str(refused.operation_id),
            device_id=str(refused.device_id),
            error=one_line_error(error),
            again_after=PAUSE,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
