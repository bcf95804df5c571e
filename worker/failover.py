"""The order in which the hosts of an address are tried: those that failed a moment ago come last."""

import time
from collections.abc import Hashable, Sequence
from typing import TypeVar

AVOIDANCE = 60
"""Seconds for which a host that failed is tried after the others."""

Host = TypeVar("Host", bound=Hashable)


class Failures:
    """The hosts that failed, and when."""

    def __init__(self) -> None:
        self._at: dict[Hashable, float] = {}
        """By the monotonic clock, in seconds."""

    def note(self, host: Hashable) -> None:
        """Record that a host fails now."""
        self._at[host] = time.monotonic()

    def forget(self, host: Hashable) -> None:
        """Record that a host can be used."""
        self._at.pop(host, None)

    def last(self, hosts: Sequence[Host]) -> Sequence[Host]:
        """The hosts in their order, those that failed a moment ago after the others."""
        recently = time.monotonic() - AVOIDANCE
        return sorted(hosts, key=lambda host: self._at.get(host, recently) > recently)
