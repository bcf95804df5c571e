"""A worker's numbers in Prometheus' format, read off when somebody asks: no batch pays for them."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from statemachine import Verdict
from worker.amqp.session import QueueState
from worker.model.outcomes import CONTRADICTING, DUPLICATE, LEFT_OUT, OF_DISCARDED, REJECTED, Reason, Tally
from worker.watch.database_metrics import Standing
from worker.watch.health import Health

_VERDICTS = (Verdict.APPLIED, Verdict.LATE, Verdict.REPEATED, DUPLICATE, REJECTED)


@dataclass(frozen=True, slots=True, eq=False)
class WorkerMetrics(Collector):
    """What a worker has processed, what it depends on, and what waits for it."""

    tally: Tally
    health: Health
    standing: Standing
    queues: Callable[[], Sequence[QueueState]]
    redeclared: Callable[[], int]

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now."""
        yield from self._outcomes()
        yield from self._dependencies()
        yield from self._queues()
        yield from self._standing()

    def _outcomes(self) -> Iterator[Metric]:
        tally = self.tally
        yield CounterMetricFamily(
            "deviceops_received", "Reports, announcements and unreadable messages.", tally.received
        )
        reports = CounterMetricFamily(
            "deviceops_reports", "Reports by service and verdict.", labels=["service", "verdict"]
        )
        left_out = CounterMetricFamily(
            "deviceops_left_out",
            "Reports, and announcements (of no service), of which something that could not be read was left out.",
            labels=["service"],
        )
        contradicting = CounterMetricFamily(
            "deviceops_contradicting_duplicates",
            "Duplicates that name another state than the accepted report whose id they have.",
            labels=["service"],
        )
        of_discarded = CounterMetricFamily(
            "deviceops_discarded_duplicates",
            "Reports that came again although their dead letters had been discarded.",
            labels=["service"],
        )
        for service in sorted({"", *(service for service, _ in tally.by_service)}):
            of_discarded.add_metric([service], tally.by_service[service, OF_DISCARDED])
            contradicting.add_metric([service], tally.by_service[service, CONTRADICTING])
            left_out.add_metric([service], tally.by_service[service, LEFT_OUT])
            for verdict in _VERDICTS:  # all of them: a series that begins with its first event hides that one
                reports.add_metric([service, verdict], tally.by_service[service, verdict])
        yield reports
        yield left_out
        yield contradicting
        yield of_discarded
        yield CounterMetricFamily("deviceops_announcements", "Announcements of operations.", tally.announced)
        yield CounterMetricFamily(
            "deviceops_released", "Parked reports taken up by a registration.", tally.released
        )
        letters = CounterMetricFamily("deviceops_dead_letters", "Dead letters by reason.", labels=["reason"])
        for reason in Reason:
            letters.add_metric([reason.value], tally.dead_lettered[reason])
        yield letters

    def _dependencies(self) -> Iterator[Metric]:
        health = self.health
        yield GaugeMetricFamily("deviceops_ready", "Whether the worker consumes.", float(not health.errors))
        works = GaugeMetricFamily("deviceops_dependency_up", "Whether it works.", labels=["dependency"])
        failures = CounterMetricFamily(
            "deviceops_dependency_failures",
            "How often it went from working to failing: a reconnect to the broker, a pause for the database.",
            labels=["dependency"],
        )
        for dependency in health.dependencies:
            works.add_metric([dependency.name], float(dependency.error is None))
            failures.add_metric([dependency.name], dependency.failures)
        yield from (works, failures)
        yield GaugeMetricFamily("deviceops_tasks", "Tasks of the event loop.", float(len(asyncio.all_tasks())))

    def _queues(self) -> Iterator[Metric]:
        waiting, consumers, in_flight = (
            GaugeMetricFamily(f"deviceops_{name}", help_, labels=["queue"])
            for name, help_ in (
                ("queue_messages", "Messages that the broker has delivered to nobody yet."),
                ("queue_consumers", "Consumers of the queue, those of other workers included."),
                ("in_flight_messages", "Messages that this worker has and has not acknowledged."),
            )
        )
        for queue in self.queues():
            in_flight.add_metric([queue.queue], queue.unacknowledged)
            if queue.waiting is not None and queue.consumers is not None:
                waiting.add_metric([queue.queue], queue.waiting)
                consumers.add_metric([queue.queue], queue.consumers)
        yield from (waiting, consumers, in_flight)
        yield CounterMetricFamily(
            "deviceops_topology_remade",
            "Queues and exchanges that were deleted by others and declared again: what they held is lost.",
            self.redeclared(),
        )

    def _standing(self) -> Iterator[Metric]:
        if (parked := self.standing.parked) is not None:
            yield GaugeMetricFamily(
                "deviceops_parked_reports", "Reports that wait for a registration.", parked.reports
            )
            yield GaugeMetricFamily(
                "deviceops_stale_reports",
                "Parked reports that wait for longer than DEVICEOPS_STALE_AFTER.",
                parked.stale,
            )
            if parked.oldest is not None:
                yield GaugeMetricFamily(
                    "deviceops_oldest_parked_timestamp_seconds",
                    "When the oldest parked report came.",
                    parked.oldest.timestamp(),
                )
        if (recount := self.standing.recount) is not None:
            yield GaugeMetricFamily(
                "deviceops_drifted_operations",
                "Operations with wrong counters that the last recount found, and did not put right.",
                recount.drifted,
            )
            yield GaugeMetricFamily(
                "deviceops_recount_timestamp_seconds", "When the last recount was.", recount.at.timestamp()
            )
