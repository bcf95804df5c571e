"""What batches were like: one observation each, however many messages they have."""

import time
from collections import Counter as Counts
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Gauge, Histogram

from worker.model.messages import Message
from worker.model.outcomes import Tally

SERVICES = 100
"""Services that are told apart where the settings name none: the first ones that report."""
OTHER = "other"
"""The name under which all others are counted."""

AHEAD = 3_600
"""Seconds by which a sender's clock may be ahead of ours: such a message counts as just sent."""
LONGEST_LAG = 30 * 86_400
"""Seconds that a message can have been on its way, at most; a timestamp of 0 says that it took since 1970."""

_MESSAGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
_BATCH = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
_COMMIT = (0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_LAG = (1, 2, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400)


class Meter:
    """Measures batches, and keeps the tally of all of them.

    `services` are those that the tally tells apart, None for the first hundred: names come from outside, and each
    is a time series here and at whoever collects them.
    """

    def __init__(self, registry: CollectorRegistry, services: Collection[str] | None = None) -> None:
        self.tally = Tally()
        self._services = set(services or ())
        self._room = SERVICES if services is None else 0
        self._messages = Histogram(
            "deviceops_batch_messages", "Messages of a batch.", registry=registry, buckets=_MESSAGES
        )
        self._seconds = Histogram(
            "deviceops_batch_duration_seconds",
            "From a batch in hand to its commit, waiting for the database included.",
            registry=registry,
            buckets=_BATCH,
        )
        self._lag = Histogram(
            "deviceops_publish_to_commit_seconds",
            "From a sender's AMQP timestamp to the commit, of a batch's first message; in whole seconds; without "
            "what cannot be true, such as a timestamp of 0.",
            registry=registry,
            buckets=_LAG,
        )
        self._settled_at = Gauge(
            "deviceops_last_batch_timestamp_seconds",
            "When a batch was settled last; 0 before the first one.",
            registry=registry,
        )
        commit = Histogram(
            "deviceops_commit_duration_seconds",
            "The COMMIT of a transaction alone.",
            registry=registry,
            buckets=_COMMIT,
        )
        self.on_commit = commit.observe
        """Takes how many seconds a commit took."""

    @contextmanager
    def measured(self, messages: Sequence[Message], tally: Tally) -> Iterator[None]:
        """Measure a block that settles messages, at least one, and adds them to `tally`; not if it fails."""
        began = time.perf_counter()
        yield
        self._settled_at.set_to_current_time()
        self._seconds.observe(time.perf_counter() - began)
        self._messages.observe(len(messages))
        if (sent_at := messages[0].sent_at) is not None:  # the one that waited longest, as a queue keeps the order
            lag = (datetime.now(UTC) - sent_at).total_seconds()
            if -AHEAD <= lag <= LONGEST_LAG:  # else it cannot be true
                self._lag.observe(max(lag, 0))
        self.count(tally)

    def count(self, tally: Tally) -> None:
        """Add to the tally of all batches; services beyond those that are told apart become one."""
        tally.by_service = self._bounded(tally.by_service)
        self.tally.add(tally)

    def _bounded(self, by_service: Counts[tuple[str, str]]) -> Counts[tuple[str, str]]:
        bounded: Counts[tuple[str, str]] = Counts()
        for (service, verdict), count in by_service.items():
            bounded[self._name(service), verdict] += count
        return bounded

    def _name(self, service: str) -> str:
        if service and service not in self._services:
            if not self._room:
                return OTHER
            self._room -= 1
            self._services.add(service)
        return service
