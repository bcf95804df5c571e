"""Traces of batches and of what is published, by OpenTelemetry, which only the extra `tracing` installs.

They are on where OpenTelemetry's own variables ask for them; elsewhere nothing of it is even imported.

- `messaging`: the spans, and what links them to those of the producers
- `exporting`: how they get to the collector, and what the log says where they do not
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
"""Seconds that the last spans may take on their way to the collector when a command ends, at most."""

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@asynccontextmanager
async def tracing(settings: Settings, stop: asyncio.Event | None = None) -> AsyncIterator["Tracer | None"]:
    """What makes spans for the length of a block, None if nobody asks for them.

    After it the last spans are sent, in what is left then of the time to drain, which begins when `stop` is set.
    Raises SettingsError if traces are asked for and cannot be had.
    """
    asking = _asked_by()
    if asking is None:
        yield None
        return
    try:
        from worker.tracing.exporter import Exporting  # where nobody asks, nobody pays
        from worker.tracing.messaging import Tracer
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise SettingsError(f"{asking}: tracing is not installed: pip install 'deviceops[tracing]'") from error
    loop = asyncio.get_running_loop()
    told_to_stop = asyncio.create_task(_time_of(stop or asyncio.Event()))
    exporting = Exporting()
    tracer = Tracer(exporting.provider, settings)
    try:
        with tracer.within_batches():
            yield tracer
    finally:
        told_to_stop.cancel()
        left: float = FLUSH
        if told_to_stop.done():
            left = min(left, told_to_stop.result() + settings.drain_timeout - loop.time())
        await exporting.end(max(left, 0))


async def _time_of(event: asyncio.Event) -> float:
    """When it was set, by the loop's clock."""
    await event.wait()
    return asyncio.get_running_loop().time()


def _asked_by() -> str | None:
    """The variable that asks for traces. Raises SettingsError if it asks for what we do not have."""
    values = {name: os.environ.get(name, "").strip() for name in (_EXPORTER, *_ENDPOINTS, *_PROTOCOLS)}
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or values[_EXPORTER].lower() == "none":
        return None
    asking = next((name for name in (_EXPORTER, *_ENDPOINTS) if values[name]), None)
    if asking is None:
        return None
    if values[_EXPORTER].lower() not in ("", "otlp"):
        raise SettingsError(f"{_EXPORTER}: is otlp or none here, not {values[_EXPORTER]}")
    protocol = next((name for name in _PROTOCOLS if values[name]), _PROTOCOLS[0])
    if values[protocol] not in ("", "http/protobuf"):
        raise SettingsError(f"{protocol}: is http/protobuf here, not {values[protocol]}")
    return asking
