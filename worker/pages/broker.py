"""The broker's queues, for the system page: looked at in the background, over a connection of their own.

It is opened when they are asked for, and closed once they have not been for a while.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

import structlog

from worker.config.settings import Settings
from worker.model.text import one_line

if TYPE_CHECKING:
    from worker.amqp.connection import Connection

EVERY = 2
"""Seconds between two looks."""
ANSWER = 3
"""Seconds that connecting may take, and a look."""
WANTED = 30
"""Seconds after the last question for which looks go on."""
OUTDATED = 10
"""Seconds after which the last look is not taken for the present."""
_COURSE = 15
"""Looks from which it follows how fast a queue grows."""

_log = structlog.get_logger()


class QueueFacts(NamedTuple):
    """A queue, as the broker has it."""

    name: str
    messages: int
    """That wait to be delivered."""
    consumers: int
    growth: float | None
    """Messages that it has become longer by in a second, lately; None before the second look."""


class BrokerFacts(NamedTuple):
    """A broker that answered."""

    server: str
    """Product, version and place, in one line."""
    queues: Sequence[QueueFacts]


class Look(NamedTuple):
    """What is known of the broker."""

    facts: BrokerFacts | None
    """As it was at the last look that succeeded; None before, and once that is outdated."""
    problem: str
    """Why it cannot be reached, in one line; empty if it can, or before that is known."""


class BrokerWatch:
    """Looks at the queues of a topology while their facts are asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wanted_at = 0.0
        self._facts: BrokerFacts | None = None
        self._found_at = 0.0
        self._problem = ""
        self._course: dict[str, deque[tuple[float, int]]] = {}
        self._running: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()

    async def get(self, patience: float) -> Look:
        """What is known; before anything is, waits for it, at most so many seconds."""
        self._wanted_at = time.monotonic()
        if self._running is None or self._running.done():
            self._looked.clear()
            self._running = asyncio.create_task(self._run())
        if not self._looked.is_set():
            waiting = asyncio.create_task(self._looked.wait())
            await asyncio.wait({waiting}, timeout=patience)
            waiting.cancel()
        is_present = self._facts is not None and time.monotonic() - self._found_at < OUTDATED
        return Look(self._facts if is_present else None, self._problem)

    async def _run(self) -> None:
        from worker.amqp.connection import (  # late: for few pages
            BrokerUnavailable,
            describe_error,
            is_broker_error,
        )

        while self._is_wanted:
            try:
                await self._connect_and_look()
            except BrokerUnavailable as error:
                self._fail(str(error))
            except TimeoutError:
                self._fail(f"the broker does not answer within {ANSWER} s")
            except (Exception, asyncio.CancelledError) as error:
                if not is_broker_error(error):
                    if isinstance(error, asyncio.CancelledError):
                        raise
                    _log.error("unhandled error", exc_info=error)
                self._fail(f"broker: {describe_error(error)}")
            await asyncio.sleep(EVERY)

    @property
    def _is_wanted(self) -> bool:
        return time.monotonic() - self._wanted_at < WANTED

    async def _connect_and_look(self) -> None:
        from worker.amqp.connection import connected  # late: for few pages

        async with AsyncExitStack() as stack:
            async with asyncio.timeout(ANSWER):
                connection = await stack.enter_async_context(connected(self._settings))
            while self._is_wanted:
                async with asyncio.timeout(ANSWER):
                    self._facts = await self._look(connection)
                self._found_at, self._problem = time.monotonic(), ""
                self._looked.set()
                await asyncio.sleep(EVERY)

    async def _look(self, connection: "Connection") -> BrokerFacts:
        from worker.amqp import versions  # late: for few pages
        from worker.amqp.topology import Topology

        found = await Topology(self._settings.topology_prefix, self._settings.partitions).looks(connection)
        numbers = {name: queue.message_count or 0 for name, queue in found.items()}
        self._course = {name: self._course.get(name, deque(maxlen=_COURSE)) for name in numbers}
        now = time.monotonic()
        for name, number in numbers.items():
            self._course[name].append((now, number))
        return BrokerFacts(
            versions.describe(connection),
            [
                QueueFacts(name, numbers[name], queue.consumer_count or 0, _growth(self._course[name]))
                for name, queue in found.items()
            ],
        )

    def _fail(self, problem: str) -> None:
        self._problem = one_line(problem)
        self._course.clear()
        self._looked.set()


def _growth(course: Sequence[tuple[float, int]]) -> float | None:
    (first_at, first), (last_at, last) = course[0], course[-1]
    return (last - first) / (last_at - first_at) if last_at > first_at else None
