"""Spans by OpenTelemetry's semantic conventions for messaging and RabbitMQ.

A batch has messages of many producers, so its span is in none of their traces, and links to their spans instead.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from structlog.contextvars import bound_contextvars

from worker import spans
from worker.amqp.topology import Topology
from worker.config.settings import Settings
from worker.model.messages import Message, Origin
from worker.model.outcomes import Tally

MAX_LINKS = 128
"""Maximum links of a span, as in OpenTelemetry itself. A batch may have messages of a thousand traces."""

TRACEPARENT = "traceparent"
"""The header of W3C Trace Context, in AMQP as in HTTP."""

_contexts = TraceContextTextMapPropagator()


class Tracer:
    """Makes a span for each batch, and for messages that are published together."""

    def __init__(self, provider: TracerProvider, settings: Settings) -> None:
        self._tracer = provider.get_tracer("deviceops")
        self._topology = Topology(settings.topology_prefix)
        self._broker: dict[str, AttributeValue] = {"messaging.system": "rabbitmq"}
        if len(settings.brokers) == 1 and (broker := settings.brokers[0]).host and broker.port:
            self._broker.update({"server.address": broker.host, "server.port": broker.port})

    @contextmanager
    def spans_in_batches(self) -> Iterator[None]:
        """A block in which the steps of a batch have spans too."""
        spans.set_opener(self._tracer.start_as_current_span)
        try:
            yield
        finally:
            spans.set_opener(None)

    @contextmanager
    def processing(self, messages: Sequence[Message], tally: Tally) -> Iterator[None]:
        """The span of a block that processes a batch and adds to `tally`, linked to the messages' own spans."""
        topology = self._topology
        is_abandoned = messages[0].abandoned is not None
        exchange = topology.dead_letters if is_abandoned else topology.prefix
        queue = topology.dead_letters if is_abandoned else topology.reports
        destination = ":".join(dict.fromkeys((exchange, queue)))
        links, left_out = _links(messages)
        with self._span("process", SpanKind.CONSUMER, destination, len(messages), links) as span:
            if left_out:
                span.set_attribute("deviceops.links_left_out", left_out)
            yield
            span.set_attributes(_counts(tally))

    @contextmanager
    def sending(self, messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
        """The span of a block that publishes messages; yields them with its context, unless they have one."""
        with self._span("send", SpanKind.PRODUCER, self._topology.prefix, len(messages)):
            headers: dict[str, str] = {}
            _contexts.inject(headers)
            yield [replace(each, origin=partial(_with_context, each.origin, headers)) for each in messages]

    @contextmanager
    def _span(
        self, operation: str, kind: SpanKind, destination: str, count: int, links: Sequence[Link] = ()
    ) -> Iterator[Span]:
        attributes: dict[str, AttributeValue] = {
            **self._broker,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": destination,
            "messaging.batch.message_count": count,
        }
        name = f"{operation} {destination}"
        with (
            self._tracer.start_as_current_span(name, kind=kind, attributes=attributes, links=links) as span,
            bound_contextvars(trace_id=trace.format_trace_id(span.get_span_context().trace_id)),
        ):
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                raise


def _links(messages: Sequence[Message]) -> tuple[list[Link], int]:
    """Links to the spans in which messages were sent, and the number of those beyond the limit."""
    first: dict[str, Message] = {}
    for message in messages:
        traceparent = message.origin().headers.get(TRACEPARENT)
        if isinstance(traceparent, str):  # a sender may set it to anything
            first.setdefault(traceparent, message)
    links: list[Link] = []
    for read, (traceparent, message) in enumerate(first.items()):
        if len(links) == MAX_LINKS:
            return links, len(first) - read
        if link := _link(traceparent, message):
            links.append(link)
    return links, 0


def _link(traceparent: str, message: Message) -> Link | None:
    """A link to the span in which a message was sent; None without a valid Trace Context."""
    context = _contexts.extract({TRACEPARENT: traceparent})
    found = trace.get_current_span(context).get_span_context()
    if not found.is_valid:
        return None
    return Link(found, {"messaging.message.id": message.message_id} if message.message_id else None)


def _with_context(origin: Callable[[], Origin], context: Mapping[str, str]) -> Origin:
    """A message's origin with the context of the span in which it is sent."""
    given = origin()
    return given if TRACEPARENT in given.headers else replace(given, headers={**given.headers, **context})


def _counts(tally: Tally) -> dict[str, AttributeValue]:
    """The outcomes of a batch as attributes."""
    counts = {name: value for name, value in tally.document().items() if isinstance(value, int)}
    rejected = {f"dead_lettered.{reason}": number for reason, number in tally.dead_letter_counts().items()}
    return {f"deviceops.{name}": number for name, number in {**counts, **rejected}.items()}
