"""OpenTelemetry traces of batches and of publishing; requires the extra `tracing`.

Enabled by OpenTelemetry's own variables; otherwise OpenTelemetry is not imported.

- `messaging`: the spans, and their links to the producers' spans
- `exporter`: the export to the collector, and the log of its failures
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from worker.config.settings import Settings
from worker.errors import SettingsError

if TYPE_CHECKING:
    from worker.tracing.messaging import Tracer

FLUSH = 3
"""Maximum seconds to export the last spans when a command ends."""

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@asynccontextmanager
async def tracing(settings: Settings, stop: asyncio.Event | None = None) -> AsyncIterator["Tracer | None"]:
    """The tracer for the duration of a block, None if tracing is disabled.

    Afterwards the last spans are exported, within the rest of the drain timeout, which starts when `stop` is set.
    Raises SettingsError if tracing is enabled and not possible.
    """
    variable = _enabling_variable()
    if variable is None:
        yield None
        return
    try:
        from worker.tracing.exporter import SpanExport  # imported only if enabled
        from worker.tracing.messaging import Tracer
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise SettingsError(f"{variable}: tracing is not installed: pip install 'deviceops[tracing]'") from error
    loop = asyncio.get_running_loop()
    stopped = asyncio.create_task(_time_of(stop or asyncio.Event()))
    export = SpanExport()
    tracer = Tracer(export.provider, settings)
    try:
        with tracer.spans_in_batches():
            yield tracer
    finally:
        stopped.cancel()
        left: float = FLUSH
        if stopped.done():
            left = min(left, stopped.result() + settings.drain_timeout - loop.time())
        await export.end(max(left, 0))


async def _time_of(event: asyncio.Event) -> float:
    """The time at which it was set, by the loop's clock."""
    await event.wait()
    return asyncio.get_running_loop().time()


def _enabling_variable() -> str | None:
    """The variable that enables tracing, None if none does. Raises SettingsError for unsupported values."""
    values = {name: os.environ.get(name, "").strip() for name in (_EXPORTER, *_ENDPOINTS, *_PROTOCOLS)}
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or values[_EXPORTER].lower() == "none":
        return None
    variable = next((name for name in (_EXPORTER, *_ENDPOINTS) if values[name]), None)
    if variable is None:
        return None
    if values[_EXPORTER].lower() not in ("", "otlp"):
        raise SettingsError(f"{_EXPORTER}: {values[_EXPORTER]} is not supported (expected otlp or none)")
    protocol = next((name for name in _PROTOCOLS if values[name]), _PROTOCOLS[0])
    if values[protocol] not in ("", "http/protobuf"):
        raise SettingsError(f"{protocol}: {values[protocol]} is not supported (expected http/protobuf)")
    return variable
