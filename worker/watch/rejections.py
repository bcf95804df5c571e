"""Dead letters in the log, so that somebody can look for one; however many there are, the log stays readable."""

import asyncio
from collections import Counter

import structlog

from worker.contract import one_line
from worker.outcomes import EXAMPLES, Example, Reason, Tally

INTERVAL = 1
"""Seconds between two lines, at least."""

_log = structlog.get_logger()


class Rejections:
    """Tells of dead letters: of a batch's at once, but with one line a second at most, which counts the rest."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._counts: Counter[Reason] = Counter()
        self._examples: list[Example] = []
        self._pause: asyncio.TimerHandle | None = None

    def note(self, tally: Tally) -> None:
        """Take note of a batch."""
        self._counts.update(+tally.dead_lettered)
        self._examples += tally.examples[: EXAMPLES - len(self._examples)]
        if self._pause is None:
            self._tell()

    def close(self) -> None:
        """Tell what was not told yet."""
        if self._pause is not None:
            self._pause.cancel()
            self._tell()

    def _tell(self) -> None:
        self._pause = None
        if not self._counts:
            return
        _log.info(
            "dead letters",
            **{reason.value: number for reason, number in sorted(self._counts.items())},
            first=[_named(example) for example in self._examples],
        )
        self._counts.clear()
        self._examples.clear()
        self._pause = asyncio.get_running_loop().call_later(self._interval, self._tell)


def _named(example: Example) -> dict[str, str]:
    """What is known of it."""
    named = {name: str(value) for name, value in example._asdict().items() if value is not None}
    return {name: one_line(value) for name, value in named.items()}
