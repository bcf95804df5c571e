"""One who follows changes: what it wants, and how far it is. Holds positions, and no change."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from uuid import UUID

from worker.api.recent import Recent, RecentChanges
from worker.model.changes import ChangeType

CHUNK = 65_536
"""Bytes that are sent at a time, about."""


class Follower:
    """Follows all changes, or those of one operation; of some types if they are given."""

    is_patient = False
    """Whether it is enough to be told a few times a second."""

    def __init__(self, operation_id: UUID | None = None, types: Collection[ChangeType] = ()) -> None:
        self.operation_id = operation_id
        self.of = None if operation_id is None else str(operation_id)
        self.types = types
        self.position = 0
        """Everything that it wants is sent up to here."""
        self.known = 0
        """The sequence up to which the operation's changes are in the state that was sent at first."""
        self.is_live = False
        """Whether it is told what is new, instead of reading the log."""
        self.is_stopped = False
        self._next: int | None = None
        self._woken = asyncio.Event()

    def wants(self, change_type: str, sequence: int | None) -> bool:
        """Whether to send a change of what it follows."""
        is_new = self.of is None or sequence is None or sequence > self.known
        return is_new and (not self.types or change_type in self.types)

    def tell(self, change: Recent) -> bool:
        """Note that there is a change of what it follows; returns whether it has to be woken to send something."""
        if self._next is not None or change.position <= self.position:
            return False
        if not self.wants(change.type, change.sequence):
            return False
        self._next = change.position
        self.position = change.position - 1
        return True

    def wake(self) -> None:
        """Have it send what it was told, unless it has meanwhile."""
        if self._next is not None:
            self._woken.set()

    def take(self, recent: RecentChanges) -> bytes:
        """The next events, empty if there are none; it is live no longer if they are not held any more."""
        if self._next is None:
            return b""
        if self._next <= recent.forgotten:
            self.end_live()
            return b""
        frames: list[bytes] = []
        size, start, self._next = 0, self._next, None
        for change in recent.since(start, self.of):
            if not self.wants(change.type, change.sequence):
                continue
            if size >= CHUNK:
                self._next = change.position
                break
            frames.append(change.frame)
            size += len(change.frame)
            self.position = change.position
        return b"".join(frames)

    async def wait(self, seconds: float) -> None:
        """Wait until there is something to do, but not longer than some seconds."""
        if self._next is None and not self.is_stopped:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
        self._woken.clear()

    def end_live(self, position: int = 0) -> None:
        """Have it read the log from where it is, which is `position` if it has taken everything."""
        if self._next is None:
            self.position = max(self.position, position)
        self.is_live, self._next = False, None
        self._woken.set()

    def stop(self) -> None:
        """End it."""
        self.is_stopped = True
        self._woken.set()
