"""Deliveries as messages; what only a dead letter needs is read on demand."""

from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from worker.amqp.delivery import Delivery
from worker.amqp.x_death import describe, limit_reached, parse_x_death, redeliveries
from worker.model.identity import identity
from worker.model.messages import REPLAY_OF, Message, Origin
from worker.model.text import clean

POISON_AFTER = 10
"""Unsuccessful deliveries after which a message is a poison candidate."""


def as_message(delivery: Delivery, received_at: datetime) -> Message:
    """A delivery as a message; what only a dead letter needs is read on demand."""
    message_id, type_, sent_at, headers, is_plain = delivery.essentials()
    return Message(
        content=delivery.body,
        received_at=received_at,
        message_id=identity(message_id),
        type=clean(type_) if type_ else None,
        sent_at=sent_at,
        origin=partial(_origin, delivery),
        replay_of=_replay_of(headers) if headers else None,
        is_plain=is_plain,
    )


def as_abandoned(delivery: Delivery, received_at: datetime) -> Message:
    """A message that the broker abandoned, with the exchange to which it was published first."""
    message = as_message(delivery, received_at)
    headers = delivery.properties.headers or {}
    deaths = parse_x_death(headers)
    origin = _origin(delivery)
    first = deaths[-1] if deaths else None
    return replace(
        message,
        abandoned=describe(deaths, limit_reached(headers)),
        redeliveries=redeliveries(headers),
        origin=lambda: replace(origin, exchange=first.exchange) if first else origin,
    )


def is_poison_candidate(delivery: Delivery) -> bool:
    """Whether workers keep crashing on this message, or on one that was delivered with it."""
    # In a first delivery the header can only come from the sender.
    return delivery.is_redelivered and redeliveries(delivery.properties.headers or {}) >= POISON_AFTER


def _replay_of(headers: dict[str, Any]) -> UUID | None:
    try:
        return UUID(headers[REPLAY_OF])
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _origin(delivery: Delivery) -> Origin:
    given: dict[str, Any] = {name: value for name, value in delivery.properties if value not in (None, "")}
    names = {"message_type": "type"}  # its name in AMQP
    properties = {names.get(name, name): value for name, value in given.items() if name != "headers"}
    deliver = delivery.deliver
    return Origin(deliver.exchange or "", deliver.routing_key or "", properties, given.get("headers", {}))
