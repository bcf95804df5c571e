"""JSON lines to RabbitMQ, each message confirmed by the broker before it counts as published."""

import asyncio
from collections.abc import Sequence

import aio_pika
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractExchange
from aio_pika.exceptions import DeliveryError

from worker.errors import DeviceopsError
from worker.intake.amqp import BROKER_ERRORS, explain
from worker.messages import REPORT, Message, body_id

CONFIRM_TIMEOUT = 30
"""Seconds to wait for the broker's confirmation of a message."""
WINDOW = 500
"""Messages on their way to the broker at a time."""


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
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            first = failures[0]
            if not isinstance(first, BROKER_ERRORS):
                raise first
            why = "the broker refuses it" if isinstance(first, DeliveryError) else "the broker does not confirm it"
            raise DeviceopsError(
                f"{len(failures)} of {len(window)} messages not published: {why}: {explain(first)}"
            )


async def _publish(exchange: AbstractExchange, message: Message) -> None:
    type_ = message.type or REPORT
    await exchange.publish(
        aio_pika.Message(
            body=message.body,
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            # aio-pika would invent an id, and the same line published again would be news.
            message_id=message.message_id or body_id(message.body),
            type=type_,
            headers=dict(message.origin().headers),  # type: ignore[arg-type]  # any JSON value is a field value
        ),
        routing_key=type_[:255],
        timeout=CONFIRM_TIMEOUT,
    )
