"""The state of a worker. Alive is not ready: a worker that waits for its database is alive and not ready."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.dependency import Dependency


@dataclass(frozen=True, slots=True)
class Health:
    """What a worker depends on, and whether it is stopping."""

    dependencies: Sequence[Dependency]
    stop: asyncio.Event

    @property
    def errors(self) -> Mapping[str, str]:
        """Why the worker is not consuming, by dependency; empty if it is ready."""
        errors = {each.name: each.error for each in self.dependencies if each.error is not None}
        return {**errors, "worker": "is stopping"} if self.stop.is_set() else errors

    def __str__(self) -> str:
        return "; ".join(f"{name}: {error}" for name, error in self.errors.items()) or "consuming"
