"""Deliveries as messages: what the processor needs of each; the rest is read only if it becomes a dead letter."""

from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from aiormq.abc import DeliveredMessage
from pamqp import commands as spec

from worker.contract import clean
from worker.intake import decoding  # noqa: F401  # makes the decoding of deliveries total
from worker.intake.deaths import read_deaths, told
from worker.messages import REPLAY_OF, Message, Origin

SUSPECT = 10
"""Deliveries that came to nothing, after which a message is suspected to be what the workers die of."""


def as_message(delivery: DeliveredMessage, received_at: datetime) -> Message:
    """What the processor needs of a delivery; the rest is read only if it becomes a dead letter."""
    properties = delivery.header.properties
    message_id, type_ = properties.message_id, properties.message_type
    return Message(
        body=delivery.body,
        received_at=received_at,
        message_id=clean(message_id) if message_id else None,
        type=clean(type_) if type_ else None,
        sent_at=properties.timestamp,
        origin=partial(_origin, delivery),
        replay_of=_replay_of(properties.headers) if properties.headers else None,
    )


def as_given_up(delivery: DeliveredMessage, received_at: datetime) -> Message:
    """A message that the broker gave up on; it came, and is kept, as from the exchange that it was sent to."""
    message = as_message(delivery, received_at)
    headers = delivery.header.properties.headers or {}
    deaths, redeliveries = read_deaths(headers), headers.get("x-delivery-count")
    origin = _origin(delivery)
    first = deaths[-1] if deaths else None
    message.given_up = told(deaths)
    message.redeliveries = redeliveries if isinstance(redeliveries, int) else 0
    message.origin = lambda: replace(origin, exchange=first.exchange) if first else origin
    return message


def is_suspect(delivery: DeliveredMessage) -> bool:
    """Whether workers that got this message keep dying, of it or of one that was delivered with it."""
    deliver, headers = delivery.delivery, delivery.header.properties.headers
    # A message that was not delivered before carries the header only if its sender made it up.
    if not headers or not isinstance(deliver, spec.Basic.Deliver) or not deliver.redelivered:
        return False
    count = headers.get("x-delivery-count")
    return isinstance(count, int) and count >= SUSPECT


def _replay_of(headers: dict[str, Any]) -> UUID | None:
    try:
        return UUID(headers[REPLAY_OF])
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _origin(delivery: DeliveredMessage) -> Origin:
    given: dict[str, Any] = {name: value for name, value in delivery.header.properties if value not in (None, "")}
    names = {"message_type": "type"}  # its name in AMQP
    properties = {names.get(name, name): value for name, value in given.items() if name != "headers"}
    deliver = delivery.delivery
    assert isinstance(deliver, spec.Basic.Deliver)
    return Origin(deliver.exchange or "", deliver.routing_key or "", properties, given.get("headers", {}))
