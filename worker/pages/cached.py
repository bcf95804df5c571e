"""A value that takes time to find: looked for in the background, and shown as it was at the last look."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, NamedTuple, TypeVar

from worker.store.errors import one_line_error

Value = TypeVar("Value")

_SHARE = 20
"""A look that took so many times less than the time since it is made anew: looks take 5% of the time at most."""


class Known(NamedTuple, Generic[Value]):
    """What is known of a value."""

    value: Value | None
    """As it was at the last look that succeeded; None before."""
    age: float
    """Seconds since then."""
    problem: str
    """Why the last look failed, in one line; empty if it succeeded, or before it has ended."""


class Cached(Generic[Value]):
    """Looks for a value when it is asked for, at most every so many seconds, and not again while a look runs."""

    def __init__(self, look: Callable[[], Coroutine[Any, Any, Value]], every: float) -> None:
        self._look = look
        self._every = every
        self._value: Value | None = None
        self._found_at = self._ended_at = -float("inf")
        self._took = 0.0
        self._problem = ""
        self._running: asyncio.Task[None] | None = None

    async def get(self, patience: float) -> Known[Value]:
        """What is known; before anything is, waits for it, at most so many seconds."""
        now = time.monotonic()
        if self._running is None and now - self._ended_at >= max(self._every, _SHARE * self._took):
            self._running = asyncio.create_task(self._run())
        if self._running is not None and self._value is None:
            await asyncio.wait({self._running}, timeout=patience)
        return Known(self._value, time.monotonic() - self._found_at, self._problem)

    async def _run(self) -> None:
        began = time.monotonic()
        try:
            self._value = await self._look()
            self._found_at, self._problem = time.monotonic(), ""
        except Exception as error:  # shown  # noqa: BLE001
            self._problem = one_line_error(error)
        finally:
            self._ended_at = time.monotonic()
            self._took, self._running = self._ended_at - began, None
