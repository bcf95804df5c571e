"""Metrics of batches: one observation per batch, whatever its size."""

import time
from collections import Counter as Counts
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Gauge, Histogram

from worker.model.messages import Message
from worker.model.outcomes import Tally

MAX_SERVICES = 100
"""Maximum number of services with series of their own where the settings name none: the first to report."""
OTHER = "other"
"""The label of all other services."""

MAX_AHEAD = 3_600
"""Seconds by which a sender's clock may be ahead; the lag is 0 then."""
MAX_LAG = 30 * 86_400
"""Maximum plausible lag in seconds; a longer one, as of a timestamp of 0, is not observed."""

_MESSAGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
_BATCH = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
_COMMIT = (0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_LAG = (1, 2, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400)


class BatchMetrics:
    """Measures batches and sums up their tallies.

    `services` are the names with series of their own, None for the first MAX_SERVICES: names come from senders,
    and each is a time series here and in Prometheus.
    """

    def __init__(self, registry: CollectorRegistry, services: Collection[str] | None = None) -> None:
        self.tally = Tally()
        self._services = set(services or ())
        self._free = MAX_SERVICES if services is None else 0
        self._messages = Histogram(
            "deviceops_batch_messages", "Messages per batch.", registry=registry, buckets=_MESSAGES
        )
        self._seconds = Histogram(
            "deviceops_batch_duration_seconds",
            "Time from the delivery of a batch to its commit, including the wait for the database.",
            registry=registry,
            buckets=_BATCH,
        )
        self._lag = Histogram(
            "deviceops_publish_to_commit_seconds",
            "Time from the AMQP timestamp of a batch's first message to the commit, in whole seconds; implausible "
            "timestamps, such as 0, are not observed.",
            registry=registry,
            buckets=_LAG,
        )
        self._committed_at = Gauge(
            "deviceops_last_batch_timestamp_seconds",
            "Time of the last commit of a batch; 0 before the first one.",
            registry=registry,
        )
        commit = Histogram(
            "deviceops_commit_duration_seconds",
            "Duration of the COMMIT alone.",
            registry=registry,
            buckets=_COMMIT,
        )
        self.on_commit = commit.observe
        """Observes the duration of a commit in seconds."""

    @contextmanager
    def measuring(self, messages: Sequence[Message], tally: Tally) -> Iterator[None]:
        """Observe a block that processes one or more messages and adds to `tally`, unless it raises."""
        began = time.perf_counter()
        yield
        self._committed_at.set_to_current_time()
        self._seconds.observe(time.perf_counter() - began)
        self._messages.observe(len(messages))
        if (sent_at := messages[0].sent_at) is not None:  # the oldest: the queue keeps the order
            lag = (datetime.now(UTC) - sent_at).total_seconds()
            if -MAX_AHEAD <= lag <= MAX_LAG:
                self._lag.observe(max(lag, 0))
        self.count(tally)

    def count(self, tally: Tally) -> None:
        """Add to the total; services without a series of their own are counted as `other`."""
        tally.by_service = self._bounded(tally.by_service)
        self.tally.add(tally)
        self.tally.aborted.clear()  # counted; the total lives as long as the process

    def _bounded(self, by_service: Counts[tuple[str, str]]) -> Counts[tuple[str, str]]:
        bounded: Counts[tuple[str, str]] = Counts()
        for (service, verdict), count in by_service.items():
            bounded[self._label(service), verdict] += count
        return bounded

    def _label(self, service: str) -> str:
        if service and service not in self._services:
            if not self._free:
                return OTHER
            self._free -= 1
            self._services.add(service)
        return service
