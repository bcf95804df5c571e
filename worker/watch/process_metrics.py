"""What every process of ours tells of itself: what it runs, its memory and files, its database connections."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.log_writer import writer
from worker.store.database import Database


class _Process(Collector):
    def __init__(self, databases: Mapping[str, Database]) -> None:
        self._databases = databases

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now."""
        runs = {"version": version("deviceops"), "python": platform.python_version()}
        yield InfoMetricFamily("deviceops_build", "What runs.", runs)
        yield CounterMetricFamily(
            "deviceops_log_lines_dropped", "Log lines that standard error did not take.", writer.dropped
        )
        size, in_use, overflow = (
            GaugeMetricFamily(f"deviceops_database_pool_{name}", help_, labels=["pool"])
            for name, help_ in (
                ("size", "Connections that the pool keeps, at most."),
                ("in_use", "Connections that somebody works with."),
                ("overflow", "Connections beyond those that the pool keeps."),
            )
        )
        for name, database in self._databases.items():
            connections = database.connections
            size.add_metric([name], connections.size)
            in_use.add_metric([name], connections.in_use)
            overflow.add_metric([name], connections.overflow)
        yield from (size, in_use, overflow)


def registry_of_process(databases: Mapping[str, Database]) -> CollectorRegistry:
    """A registry with what a process and its databases, by name, tell."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # else each series has one more, of when it began
    registry = CollectorRegistry()
    registry.register(_Process(databases))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
