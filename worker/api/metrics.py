"""The API's numbers in Prometheus' format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import Scope

from worker.api.subscriptions import Changes

METHODS = frozenset(("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"))
"""Methods that are told apart: callers may make up others, and each is a time series."""

_SECONDS = (0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Requests:
    """Counts requests that have ended and measures them, by their route: the address as the documentation has it.

    A request to an address that there is not, or from a caller who is not let in, has the route "".
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "deviceops_http_requests",
            "Requests by method, route and status; the status is 0 where the caller left before an answer.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "deviceops_http_request_duration_seconds",
            "From a request's first byte until its answer begins.",
            ["method", "route"],
            registry=registry,
            buckets=_SECONDS,
        )

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Take note of a request that was answered within so many seconds."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = getattr(scope.get("route"), "path", "")
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)


def count_followers(registry: CollectorRegistry, changes: Changes) -> None:
    """Have a registry tell how many follow operations."""
    followers = Gauge("deviceops_http_followers", "Callers who follow an operation's events.", registry=registry)
    followers.set_function(lambda: changes.followers)
