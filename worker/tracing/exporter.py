"""How spans get to the collector: in a thread of their own, so that no batch waits for it."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from worker.dependency import Dependency
from worker.model.text import one_line


class Exporting:
    """Spans on their way, as OpenTelemetry's variables want it: where to, how many at once, which of them."""

    def __init__(self) -> None:
        # What the variables say of the resource comes first.
        given = OTELResourceDetector().detect().attributes
        resource = Resource.create({"service.name": "deviceops", "service.version": version("deviceops"), **given})
        # At exit it would wait for half a minute for a collector that is away: end() does it in time.
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._dependency = Dependency("traces", "trace export failed, spans are dropped", "trace export resumed")
        self._complaints = _Complaints(self._dependency)
        self.provider.add_span_processor(BatchSpanProcessor(_Exporter(self._dependency)))

    async def end(self, seconds: float) -> None:
        """Send what is left; what is not sent after so many seconds is lost."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self.provider.shutdown()
            loop.call_soon_threadsafe(ended.set)

        # No executor's thread: the end of the loop would wait for that.
        threading.Thread(target=shut_down, name="last traces", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            self._dependency.mark_down(f"the last ones were not sent within {seconds:.1f} s")
        self._complaints.end()


class _Exporter(SpanExporter):
    """OTLP over HTTP, with an eye on whether it works."""

    def __init__(self, dependency: Dependency) -> None:
        self._exporter = OTLPSpanExporter()
        self._dependency = dependency

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; what comes of it changes the condition."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._dependency.mark_up()
        return result

    def shutdown(self) -> None:
        """Send no more, and wait no longer for a collector that is away."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _Complaints(logging.Handler):
    """Takes the lines in which OpenTelemetry complains about each try, and tells of the first one only."""

    SOURCES = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")
    """Loggers of what cannot be sent, and of what finds no room to wait in."""

    def __init__(self, dependency: Dependency) -> None:
        super().__init__()
        self._dependency = dependency
        self._is_heard = True
        for source in map(logging.getLogger, self.SOURCES):
            source.addHandler(self)
            source.setLevel(logging.WARNING)
            source.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        if self._is_heard:
            self._dependency.mark_down(one_line(record.getMessage()))

    def end(self) -> None:
        """Tell no more."""
        self._is_heard = False
