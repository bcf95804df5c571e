"""A collector of traces, as OpenTelemetry has it: OTLP over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
MALFORMED: list[Any] = [
    "nonsense",
    "",
    TRACEPARENT[:-1],
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    "0" * 5_000,
    7,
    True,
    bytearray(b"\xff\xfe"),
    [TRACEPARENT],
    {"a": TRACEPARENT},
]
"""Values of the header `traceparent` that name no span."""


class Collector:
    """The spans that came, and which service sent them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def named(self, beginning: str) -> list[Span]:
        """The spans whose names begin so."""
        return [span for span in self.spans if span.name.startswith(beginning)]

    def take(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            self.services |= {a.value.string_value for a in group.resource.attributes if a.key == "service.name"}
            self.spans += [span for scope in group.scope_spans for span in scope.spans]


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """A collector for the length of a block, on any port that is free unless one is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # a name of the library's
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield collector
        finally:
            server.shutdown()


def attributes(span: Span) -> dict[str, str | int]:
    """Those of a span that are text or numbers."""
    values = {each.key: each.value for each in span.attributes}
    return {key: value.string_value or value.int_value for key, value in values.items()}
