"""A worker's numbers in Prometheus' format, read off when somebody asks: no batch pays for them."""

import asyncio
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from statemachine import Verdict
from worker.outcomes import Reason, Tally
from worker.watch.health import Health


class _Worker(Collector):
    def __init__(self, tally: Tally, health: Health) -> None:
        self._tally = tally
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now."""
        yield InfoMetricFamily("deviceops_build", "What runs.", {"version": version("deviceops")})
        yield from self._outcomes()
        yield from self._conditions()

    def _outcomes(self) -> Iterator[Metric]:
        tally = self._tally
        yield CounterMetricFamily(
            "deviceops_received", "Reports, announcements and unreadable messages.", tally.received
        )
        reports = CounterMetricFamily("deviceops_reports", "Reports by verdict.", labels=["verdict"])
        for verdict in (Verdict.APPLIED, Verdict.LATE, Verdict.REPEATED):
            reports.add_metric([verdict.value], tally.verdicts[verdict])
        reports.add_metric(["duplicate"], tally.duplicate)
        yield reports
        yield CounterMetricFamily("deviceops_announcements", "Announcements of operations.", tally.announced)
        yield CounterMetricFamily(
            "deviceops_released", "Parked reports taken up by a registration.", tally.released
        )
        letters = CounterMetricFamily("deviceops_dead_letters", "Dead letters by reason.", labels=["reason"])
        for reason in Reason:
            letters.add_metric([reason.value], tally.dead_lettered[reason])
        yield letters

    def _conditions(self) -> Iterator[Metric]:
        health = self._health
        yield GaugeMetricFamily("deviceops_ready", "Whether the worker consumes.", float(not health.troubles))
        works = GaugeMetricFamily("deviceops_dependency_up", "Whether it works.", labels=["dependency"])
        failures = CounterMetricFamily(
            "deviceops_dependency_failures", "How often it went from working to failing.", labels=["dependency"]
        )
        for condition in health.conditions:
            works.add_metric([condition.name], float(condition.trouble is None))
            failures.add_metric([condition.name], condition.failures)
        yield from (works, failures)
        yield GaugeMetricFamily("deviceops_tasks", "Tasks of the event loop.", float(len(asyncio.all_tasks())))


def registry_of(tally: Tally, health: Health) -> CollectorRegistry:
    """All metrics of a worker and its process; names and units by Prometheus' conventions."""
    registry = CollectorRegistry()
    registry.register(_Worker(tally, health))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
