"""Export of spans to the collector, in a thread, so that no batch waits for it."""

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


class SpanExport:
    """The export of spans, configured by OpenTelemetry's variables."""

    def __init__(self) -> None:
        # Resource attributes from variables have precedence.
        given = OTELResourceDetector().detect().attributes
        resource = Resource.create({"service.name": "deviceops", "service.version": version("deviceops"), **given})
        # At exit it would wait half a minute for a collector that is down: end() has a timeout.
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._dependency = Dependency("traces", "trace export failed, spans are dropped", "trace export resumed")
        self._errors = _ExportErrors(self._dependency)
        self.provider.add_span_processor(BatchSpanProcessor(_Exporter(self._dependency)))

    async def end(self, seconds: float) -> None:
        """Export the remaining spans; those not exported within `seconds` are lost."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self.provider.shutdown()
            loop.call_soon_threadsafe(ended.set)

        # Not a thread of the executor: the end of the loop would wait for it.
        threading.Thread(target=shut_down, name="last traces", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            self._dependency.mark_down(f"the last spans were not exported within {seconds:.1f} s")
        self._errors.end()


class _Exporter(SpanExporter):
    """OTLP over HTTP; each success marks the collector as up."""

    def __init__(self, dependency: Dependency) -> None:
        self._exporter = OTLPSpanExporter()
        self._dependency = dependency

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans, and mark the collector as up on success."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._dependency.mark_up()
        return result

    def shutdown(self) -> None:
        """Stop exporting, without waiting for a collector that is down."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _ExportErrors(logging.Handler):
    """Handles OpenTelemetry's log lines, one for each failed export, so that only the first is logged."""

    SOURCES = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")
    """Loggers of failed exports and of a full queue."""

    def __init__(self, dependency: Dependency) -> None:
        super().__init__()
        self._dependency = dependency
        self._is_active = True
        for source in map(logging.getLogger, self.SOURCES):
            source.addHandler(self)
            source.setLevel(logging.WARNING)
            source.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Mark the collector as down, with the line as the error."""
        if self._is_active:
            self._dependency.mark_down(one_line(record.getMessage()))

    def end(self) -> None:
        """Ignore further lines."""
        self._is_active = False
