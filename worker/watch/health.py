"""How it stands with a worker. Alive is not ready: one that waits for its database is alive, and not ready."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.dependency import Condition


@dataclass(frozen=True, slots=True)
class Health:
    """What a worker depends on, and whether it was told to stop."""

    conditions: Sequence[Condition]
    stop: asyncio.Event

    @property
    def troubles(self) -> Mapping[str, str]:
        """What keeps it from consuming, each in words; empty if it is ready."""
        troubles = {each.name: each.trouble for each in self.conditions if each.trouble is not None}
        return {**troubles, "worker": "is stopping"} if self.stop.is_set() else troubles

    def __str__(self) -> str:
        return "; ".join(f"{name}: {trouble}" for name, trouble in self.troubles.items()) or "consuming"
