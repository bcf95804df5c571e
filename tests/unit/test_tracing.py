"""Spans of batches."""

import asyncio
from datetime import UTC, datetime

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.brokering import PATIENCE
from tests.support.collector import MALFORMED, TRACE, TRACEPARENT
from worker.config.settings import Settings
from worker.model.messages import Message, Origin
from worker.model.outcomes import Tally
from worker.tracing.messaging import MAX_LINKS, Tracer


def message(traceparent: object, number: int = 0) -> Message:
    origin = Origin(headers={"traceparent": traceparent})
    return Message(b"{}", datetime.now(UTC), message_id=f"id-{number}", origin=lambda: origin)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracer(provider, Settings())


async def test_links_are_limited_and_the_span_says_how_many_are_left_out(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    many = [message(f"00-{TRACE}-{number:016x}-01", number) for number in range(1, MAX_LINKS + 101)]
    with tracer.processing(many, Tally()):
        pass
    with tracer.processing([message(TRACEPARENT, number) for number in range(100)], Tally()):
        pass
    with tracer.processing([message(header) for header in MALFORMED], Tally()):
        pass
    limited, same, malformed = exporter.get_finished_spans()
    assert len(limited.links) == MAX_LINKS
    assert limited.attributes is not None
    assert limited.attributes["deviceops.links_left_out"] == 100
    assert len(same.links) == 1, "one for all that were sent in one span"
    assert malformed.links == ()
    for span in (same, malformed):
        assert span.attributes is not None
        assert "deviceops.links_left_out" not in span.attributes


async def test_the_span_of_a_batch_that_fails_says_so(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ConnectionError), tracer.processing([message(TRACEPARENT)], Tally()):
        raise ConnectionError("away")

    async def hangs() -> None:
        with tracer.processing([message(TRACEPARENT)], Tally()):
            await asyncio.sleep(PATIENCE)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hangs(), 0.05)
    failed, cancelled = exporter.get_finished_spans()
    assert failed.attributes is not None
    assert cancelled.attributes is not None
    assert (failed.attributes["error.type"], failed.status.is_ok) == ("ConnectionError", False)
    assert cancelled.attributes["error.type"] == "CancelledError"
