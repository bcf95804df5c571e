"""A worker's metrics for Prometheus, computed at the scrape: batches pay nothing for them."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from statemachine import Kind, Verdict
from worker.amqp.consumer import Consumer
from worker.amqp.relay import Relay
from worker.model.outcomes import CONTRADICTING, DUPLICATE, LEFT_OUT, OF_DISCARDED, REJECTED, Reason, Tally
from worker.processing.expiry import Expirer
from worker.store.batch_lock import BatchLock
from worker.watch.database_metrics import DatabaseMetrics
from worker.watch.health import Health

_VERDICTS = (Verdict.APPLIED, Verdict.LATE, Verdict.REPEATED, DUPLICATE, REJECTED)


@dataclass(frozen=True, slots=True, eq=False)
class WorkerMetrics(Collector):
    """Outcomes, dependencies, queues, and the metrics from the database."""

    tally: Tally
    health: Health
    database: DatabaseMetrics
    consumer: Consumer
    batch_lock: BatchLock | None
    expirer: Expirer
    relay: Relay | None

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        yield from self._outcomes()
        yield from self._timeouts()
        yield from self._changes()
        yield from self._dependencies()
        yield from self._queues()
        yield from self._database()

    def _outcomes(self) -> Iterator[Metric]:
        tally = self.tally
        yield CounterMetricFamily(
            "deviceops_received", "Reports, announcements and unreadable messages received.", tally.received
        )
        reports = CounterMetricFamily(
            "deviceops_reports", "Reports by service and verdict.", labels=["service", "verdict"]
        )
        left_out = CounterMetricFamily(
            "deviceops_left_out",
            "Reports, and announcements (without a service), with an unreadable field that was left out.",
            labels=["service"],
        )
        contradicting = CounterMetricFamily(
            "deviceops_contradicting_duplicates",
            "Duplicates with another state than the accepted report of the same id.",
            labels=["service"],
        )
        of_discarded = CounterMetricFamily(
            "deviceops_discarded_duplicates",
            "Reports that were redelivered or sent again after their dead letter was discarded.",
            labels=["service"],
        )
        for service in sorted({"", *(service for service, _ in tally.by_service)}):
            of_discarded.add_metric([service], tally.by_service[service, OF_DISCARDED])
            contradicting.add_metric([service], tally.by_service[service, CONTRADICTING])
            left_out.add_metric([service], tally.by_service[service, LEFT_OUT])
            for (
                verdict
            ) in _VERDICTS:  # all: a series that starts with its first event hides that event from rate()
                reports.add_metric([service, verdict], tally.by_service[service, verdict])
        yield reports
        yield left_out
        yield contradicting
        yield of_discarded
        yield CounterMetricFamily("deviceops_announcements", "Announcements of operations.", tally.announced)
        yield CounterMetricFamily(
            "deviceops_released", "Parked reports released by a registration.", tally.released
        )
        letters = CounterMetricFamily("deviceops_dead_letters", "Dead letters by reason.", labels=["reason"])
        for reason in Reason:
            letters.add_metric([reason.value], tally.dead_lettered[reason])
        yield letters

    def _timeouts(self) -> Iterator[Metric]:
        timeouts = CounterMetricFamily(
            "deviceops_timeouts", "Device operations that this worker timed out, by kind.", labels=["kind"]
        )
        for kind in Kind:
            timeouts.add_metric([kind.value], self.tally.timeouts[kind])
        yield timeouts
        yield CounterMetricFamily(
            "deviceops_aborts", "Operations whose abort threshold was crossed.", self.tally.aborts
        )
        yield GaugeMetricFamily(
            "deviceops_timeout_lag_seconds",
            "How long the first device operation that is over has waited for its timeout; 0 if none is over.",
            self.expirer.lag,
        )
        if self.database.due is not None:
            yield GaugeMetricFamily(
                "deviceops_timeouts_due", "Device operations that are over and not timed out.", self.database.due
            )

    def _changes(self) -> Iterator[Metric]:
        if self.relay is None:
            return
        yield CounterMetricFamily(
            "deviceops_changes_published",
            "Changes that this worker has published and the broker has confirmed.",
            self.relay.published,
        )
        if (unpublished := self.database.unpublished) is not None:
            yield GaugeMetricFamily(
                "deviceops_changes_outstanding", "Changes that are not published.", unpublished.number
            )
            yield GaugeMetricFamily(
                "deviceops_changes_oldest_seconds",
                "Age of the oldest change that is not published; 0 if all are.",
                (unpublished.age or 0) / 1_000,
            )
            yield CounterMetricFamily(
                "deviceops_changes_dropped",
                "Changes of device operations that were dropped, as too many were not published.",
                unpublished.dropped,
            )

    def _dependencies(self) -> Iterator[Metric]:
        health = self.health
        yield GaugeMetricFamily("deviceops_ready", "Whether the worker is consuming.", float(not health.errors))
        works = GaugeMetricFamily(
            "deviceops_dependency_up", "Whether the dependency is up.", labels=["dependency"]
        )
        failures = CounterMetricFamily(
            "deviceops_dependency_failures",
            "Transitions of the dependency from up to down.",
            labels=["dependency"],
        )
        for dependency in health.dependencies:
            works.add_metric([dependency.name], float(dependency.error is None))
            failures.add_metric([dependency.name], dependency.failures)
        yield from (works, failures)
        yield GaugeMetricFamily("deviceops_tasks", "Tasks in the event loop.", float(len(asyncio.all_tasks())))

    def _queues(self) -> Iterator[Metric]:
        waiting, consumers, in_flight = (
            GaugeMetricFamily(f"deviceops_{name}", help_, labels=["queue"])
            for name, help_ in (
                ("queue_messages", "Messages ready in the queue, not delivered."),
                ("queue_consumers", "Consumers of the queue, including those of other workers."),
                ("in_flight_messages", "Messages delivered to this worker and not acknowledged."),
            )
        )
        for queue in self.consumer.queues:
            in_flight.add_metric([queue.queue], queue.unacknowledged)
            if queue.waiting is not None and queue.consumers is not None:
                waiting.add_metric([queue.queue], queue.waiting)
                consumers.add_metric([queue.queue], queue.consumers)
        yield from (waiting, consumers, in_flight)
        yield CounterMetricFamily(
            "deviceops_topology_remade",
            "Queues and exchanges that were deleted and declared again; their messages are lost.",
            self.consumer.redeclared,
        )
        delivered = CounterMetricFamily(
            "deviceops_delivered", "Messages of the queue that came into a batch.", labels=["queue"]
        )
        for name, number in self.consumer.delivered.items():
            delivered.add_metric([name], number)
        yield delivered
        yield GaugeMetricFamily(
            "deviceops_queues_held",
            "Queues of reports that the worker consumes: with partitions, its share.",
            self.consumer.queues_held,
        )
        yield CounterMetricFamily(
            "deviceops_batch_lock_wait_seconds",
            "Seconds that batches waited for the lock of batches.",
            0 if self.batch_lock is None else self.batch_lock.waited,
        )

    def _database(self) -> Iterator[Metric]:
        if (numbers := self.database.open) is not None:
            letters = GaugeMetricFamily(
                "deviceops_open_dead_letters", "Open dead letters by reason.", labels=["reason"]
            )
            for reason, number in numbers.items():
                letters.add_metric([reason.value], number)
            yield letters
        if (parked := self.database.parked) is not None:
            yield GaugeMetricFamily(
                "deviceops_parked_reports",
                "Parked reports: their device operation is not registered.",
                parked.reports,
            )
            yield GaugeMetricFamily(
                "deviceops_stale_reports",
                "Reports parked for longer than DEVICEOPS_STALE_AFTER.",
                parked.stale,
            )
            if parked.oldest is not None:
                yield GaugeMetricFamily(
                    "deviceops_oldest_parked_timestamp_seconds",
                    "Time of receipt of the oldest parked report.",
                    parked.oldest.timestamp(),
                )
        if (recount := self.database.recount) is not None:
            yield GaugeMetricFamily(
                "deviceops_drifted_operations",
                "Operations with wrong counters that the last recount found and did not fix.",
                recount.drifted,
            )
            yield GaugeMetricFamily(
                "deviceops_recount_timestamp_seconds", "Time of the last recount.", recount.at.timestamp()
            )
