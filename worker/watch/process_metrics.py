"""Metrics of every process: version, memory, open files, log lines dropped, database connections."""

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
        """The current values."""
        runs = {"version": version("deviceops"), "python": platform.python_version()}
        yield InfoMetricFamily("deviceops_build", "Version of deviceops and Python.", runs)
        yield CounterMetricFamily(
            "deviceops_log_lines_dropped", "Log lines dropped because standard error was blocked.", writer.dropped
        )
        size, in_use, overflow = (
            GaugeMetricFamily(f"deviceops_database_pool_{name}", help_, labels=["pool"])
            for name, help_ in (
                ("size", "Maximum number of connections that the pool keeps."),
                ("in_use", "Connections in use."),
                ("overflow", "Connections in excess of the size."),
            )
        )
        for name, database in self._databases.items():
            connections = database.connections
            size.add_metric([name], connections.size)
            in_use.add_metric([name], connections.in_use)
            overflow.add_metric([name], connections.overflow)
        yield from (size, in_use, overflow)


def registry_of_process(databases: Mapping[str, Database]) -> CollectorRegistry:
    """A registry with the metrics of the process and its databases, by name."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # no _created series
    registry = CollectorRegistry()
    registry.register(_Process(databases))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
