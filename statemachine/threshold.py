"""Abort thresholds: the share of failed devices at which an operation is stopped."""

from enum import StrEnum
from typing import NamedTuple

from statemachine.counters import Counters


class AbortAction(StrEnum):
    """What happens when a threshold is crossed."""

    CANCEL = "cancel"
    """Every device operation that is not settled is cancelled."""
    NOTIFY = "notify"


class Threshold(NamedTuple):
    """An operation's abort threshold."""

    failed_percent: float
    """Of the settled device operations, from 1 to 100."""
    min_settled: int
    """Device operations that have to be settled before it can be crossed."""
    action: AbortAction

    def is_crossed(self, counters: Counters) -> bool:
        """Whether enough device operations are settled, and at least `failed_percent` of them failed."""
        settled = counters.settled_device_count
        return settled >= self.min_settled and 100 * failed(counters) >= self.failed_percent * settled


def failed(counters: Counters) -> int:
    """The number of device operations in FAILURE or TIMEOUT."""
    return counters.failed_device_count + counters.dispatch_failed_count
