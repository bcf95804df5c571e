"""JSON lines to RabbitMQ, each message confirmed by the broker before it counts as published."""

import asyncio
from collections.abc import Sequence

import aio_pika
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractExchange
from aio_pika.exceptions import DeliveryError

from worker.contract import shown
from worker.errors import DeviceopsError
from worker.intake.connection import explain, is_of_broker
from worker.messages import REPORT, Message, body_id

CONFIRM_TIMEOUT = 30
"""Seconds to wait for the broker's confirmation of a message."""
WINDOW = 500
"""Messages on their way to the broker at a time."""

_KEPT_PROPERTIES = ("content_type", "content_encoding", "priority", "correlation_id", "reply_to", "app_id")
"""What a message that came through a broker keeps beside its id, its type and its time.

Not its user_id, as the broker refuses another's, nor its expiration, as what had a time to live has had it.
"""


async def publish(exchange: AbstractExchange, messages: Sequence[Message]) -> None:
    """Publish messages in their order, persistent and mandatory, and wait until all are confirmed.

    The exchange's channel must confirm and raise on what is returned. Raises DeviceopsError if any message
    was not taken; others of the same call may have been, and publishing them again does no harm.
    """
    for start in range(0, len(messages), WINDOW):
        window = messages[start : start + WINDOW]
        results = await asyncio.gather(
            *(_publish(exchange, message) for message in window), return_exceptions=True
        )
        for message, result in zip(window, results, strict=True):
            if isinstance(result, BaseException):
                raise _explained(message, result) from result


def _explained(message: Message, error: BaseException) -> BaseException:
    named = f"not published: {shown(message.body.decode(errors='replace'))}"
    if isinstance(error, TypeError | ValueError):
        return DeviceopsError(f"{named}: AMQP cannot carry its properties or headers: {error}")
    if isinstance(error, DeliveryError):
        return DeviceopsError(f"{named}: the broker refuses it: {explain(error)}")
    if is_of_broker(error):
        return DeviceopsError(f"{named}: the broker does not confirm it: {explain(error)}")
    return error


async def _publish(exchange: AbstractExchange, message: Message) -> None:
    type_ = message.type or REPORT
    origin = message.origin()
    given = {name: origin.properties[name] for name in _KEPT_PROPERTIES if name in origin.properties}
    await exchange.publish(
        aio_pika.Message(
            body=message.body,
            delivery_mode=DeliveryMode.PERSISTENT,
            # aio-pika would invent an id, and the same line published again would be news.
            message_id=message.message_id or body_id(message.body),
            type=type_,
            timestamp=message.sent_at,
            headers=dict(origin.headers),
            **{"content_type": "application/json", **given},
        ),
        routing_key=origin.routing_key or type_,
        timeout=CONFIRM_TIMEOUT,
    )
