"""Prometheus metrics of the HTTP API."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import Scope

from worker.api.feed import Feed
from worker.model.outcomes import Tally

METHODS = frozenset(("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"))
"""Methods with a label of their own; any other is `other`, which bounds the number of time series."""

_SECONDS = (0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class RequestMetrics:
    """Counts and times completed requests by route, the path template of the OpenAPI document.

    An unknown path and a failed authentication have the route "".
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "deviceops_http_requests",
            "Requests by method, route and status; status 0: the caller disconnected before the response.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "deviceops_http_request_duration_seconds",
            "Seconds from the request to the start of the response.",
            ["method", "route"],
            registry=registry,
            buckets=_SECONDS,
        )

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Record a request: the status of its response, and the seconds until the response started."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = getattr(scope.get("route"), "path", "")
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)


class AbortMetrics:
    """Counts operations whose abort threshold was crossed by a call."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._aborts = Counter(
            "deviceops_aborts", "Operations whose abort threshold was crossed.", registry=registry
        )

    def note(self, tally: Tally) -> None:
        """Add what a call has caused."""
        self._aborts.inc(tally.aborts)


def register_subscriber_gauge(registry: CollectorRegistry, feed: Feed) -> None:
    """Register the gauge of those who follow changes."""
    subscribers = Gauge("deviceops_http_followers", "Subscribers to events.", registry=registry)
    subscribers.set_function(lambda: feed.count)
