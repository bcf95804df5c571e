"""Tracks whether the broker and the database are up; logs each transition once."""

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Dependency:
    """Something that a worker depends on: up, or down with an error.

    Probes, systemd, metrics and the watchdog all read this object, so they cannot disagree.
    """

    name: str
    down_event: str
    """Log event, warning, when it goes down."""
    up_event: str
    """Log event, info, when it is up again."""
    error: str | None = None
    """The current error in one line; None while it is up."""
    failures: int = 0
    """Transitions from up to down."""
    _is_down_logged: bool = False
    _is_refusal_logged: bool = False
    _since: float = field(default_factory=time.monotonic)

    def mark_down(self, error: str, *, is_refusal: bool = False, **fields: object) -> None:
        """Record that it is down, with the error in one line; `fields` are added to the log line.

        A refusal (it answers, but denies access) is logged once more: the line before it may only say that a
        connection was lost.
        """
        if not self._is_down_logged:
            self.failures += 1
            self._since = time.monotonic()
            _log().warning(self.down_event, **fields, error=error)
        elif is_refusal and not self._is_refusal_logged:
            _log().warning(f"{self.name} access refused", **fields, error=error)
        self.error, self._is_down_logged = error, True
        self._is_refusal_logged = self._is_refusal_logged or is_refusal

    def mark_up(self, **fields: object) -> None:
        """Record that it is up; the log line has the seconds that it was down."""
        if self.error is not None:
            _log().info(self.up_event, **fields, after=round(time.monotonic() - self._since, 1))
        self.error, self._is_down_logged, self._is_refusal_logged = None, False, False


def _log() -> Any:
    import structlog  # imported late: commands that only read log nothing

    return structlog.get_logger()
