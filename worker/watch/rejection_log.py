"""Dead letters and contradicting duplicates in the log, rate-limited."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import structlog

from worker.model.outcomes import CONTRADICTING, EXAMPLES, Tally
from worker.model.text import one_line

_log = structlog.get_logger()


class _RateLimitedLog:
    """A log line with counts and examples: at once, then at most one per interval with the sum since the last."""

    def __init__(self, event: str, level: str, interval: float) -> None:
        self._event = event
        self._level = level
        self._interval = interval
        self._counts: Counter[str] = Counter()
        self._examples: list[NamedTuple] = []
        self._pause: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Log what is left."""
        if self._pause is not None:
            self._pause.cancel()
            self._write()

    def _add(self, counts: Mapping[str, int], examples: Iterable[NamedTuple]) -> None:
        self._counts.update(counts)
        self._examples = [*self._examples, *examples][:EXAMPLES]
        if self._pause is None:
            self._write()

    def _write(self) -> None:
        self._pause = None
        if not self._counts:
            return
        write = getattr(_log, self._level)
        write(self._event, **dict(sorted(self._counts.items())), first=[_named(each) for each in self._examples])
        self._counts.clear()
        self._examples.clear()
        self._pause = asyncio.get_running_loop().call_later(self._interval, self._write)


class DeadLetterLog(_RateLimitedLog):
    """Dead letters by reason: at most one line a second."""

    def __init__(self, interval: float = 1) -> None:
        super().__init__("dead letters", "info", interval)

    def note(self, tally: Tally) -> None:
        """Add a batch."""
        self._add({reason.value: n for reason, n in tally.dead_lettered.items() if n > 0}, tally.examples)


class ContradictionLog(_RateLimitedLog):
    """Duplicates with another state than the accepted report of the same id: at most one line a minute."""

    def __init__(self, interval: float = 60) -> None:
        super().__init__("contradicting duplicates", "warning", interval)

    def note(self, tally: Tally) -> None:
        """Add a batch."""
        number = sum(n for (_, kind), n in tally.by_service.items() if kind == CONTRADICTING)
        self._add({"duplicates": number} if number else {}, tally.contradictions)


def _named(example: NamedTuple) -> dict[str, str]:
    """The known fields, each in one line."""
    named = {name: str(value) for name, value in example._asdict().items() if value is not None}
    return {name: one_line(value) for name, value in named.items()}
