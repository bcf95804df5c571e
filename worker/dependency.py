"""How it stands with what a worker depends on: the broker, the database."""

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Condition:
    """Whether something that a worker depends on does its work; each change is one line in the log, each try none.

    Probes, systemd, metrics and the watchdog all read it, so that they cannot disagree.
    """

    name: str
    lost: str
    """What the log says when it fails."""
    found: str
    """What the log says when it works again."""
    trouble: str | None = None
    """What is wrong, in words; None while all is well."""
    failures: int = 0
    """How often it went from working to failing."""
    _is_told: bool = False
    """Whether the log has the present trouble."""
    _refusal_is_told: bool = False
    """Whether it has that we are refused."""
    _since: float = field(default_factory=time.monotonic)

    def fails(self, why: str, *, is_refusal: bool = False, **facts: object) -> None:
        """Take note that it does not work, and why in one line; `facts` are for the log.

        That it answers, but refuses, is a line of its own: the one before may only say that a connection was lost.
        """
        if not self._is_told:
            self.failures += 1
            self._since = time.monotonic()
            _log().warning(self.lost, **facts, error=why)
        elif is_refusal and not self._refusal_is_told:
            _log().warning(f"the {self.name} refuses", **facts, error=why)
        self.trouble, self._is_told, self._refusal_is_told = why, True, self._refusal_is_told or is_refusal

    def works(self, **facts: object) -> None:
        """Take note that it works."""
        if self.trouble is not None:
            _log().info(self.found, **facts, after=round(time.monotonic() - self._since, 1))
        self.trouble, self._is_told, self._refusal_is_told = None, False, False


def _log() -> Any:
    import structlog  # here, as commands that only read log nothing

    return structlog.get_logger()
