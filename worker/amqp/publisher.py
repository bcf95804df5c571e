"""Publishing: each message is confirmed by the broker before it counts as published."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import aio_pika
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractExchange
from aio_pika.exceptions import DeliveryError
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity
from pamqp.commands import Basic

from worker.amqp.connection import Connection, describe_error, is_broker_error
from worker.errors import DeviceopsError
from worker.model.identity import body_id
from worker.model.messages import REPORT, Message
from worker.model.parsing import operation_of
from worker.model.text import shown

CONFIRM_TIMEOUT = 30
"""Seconds to wait for the broker's confirmation of a message."""
MAX_UNCONFIRMED = 500
"""Unconfirmed messages at a time."""

_KEPT_PROPERTIES = ("content_type", "content_encoding", "priority", "correlation_id", "reply_to", "app_id")
"""Properties that a republished message keeps, in addition to its id, type and time.

Not user_id, as the broker refuses another user's, nor expiration, which has passed.
"""


@dataclass(frozen=True, slots=True)
class Destination:
    """An exchange to publish to, and the publishing user, None if the connection does not name one."""

    exchange: AbstractExchange
    user: str | None

    @classmethod
    async def at(cls, connection: Connection, exchange: str) -> Self:
        """The exchange of that name, neither declared nor checked, which takes permissions beyond publishing."""
        channel = await connection.channel(on_return_raises=True)
        user = connection.url.user or "guest"  # the client's default
        is_by_certificate = connection.url.query.get("auth", "").lower() == "external"
        return cls(await channel.get_exchange(exchange, ensure=False), None if is_by_certificate else user)


async def publish(destination: Destination, messages: Sequence[Message]) -> None:
    """Publish messages in their order, persistent and mandatory, and wait until all are confirmed.

    Raises DeviceopsError if any message was not accepted; others of the same call may have been, and publishing
    them again has no effect.
    """
    for start in range(0, len(messages), MAX_UNCONFIRMED):
        portion = messages[start : start + MAX_UNCONFIRMED]
        results = await asyncio.gather(
            *(_publish(destination, message) for message in portion), return_exceptions=True
        )
        for message, result in zip(portion, results, strict=True):
            if isinstance(result, BaseException):
                raise _described(destination, message, result) from result


def _described(destination: Destination, message: Message, error: BaseException) -> BaseException:
    exchange, user = shown(destination.exchange.name), shown(destination.user or "of the certificate")
    named = f"not published: {shown(message.body.decode(errors='replace'))}"
    match error:
        case ChannelAccessRefused():
            return DeviceopsError(
                f"not published: 403, the user {user} may not write to the exchange {exchange}: "
                f"{describe_error(error)}"
            )
        case ChannelNotFoundEntity():
            return DeviceopsError(
                f"not published: 404, the user {user} finds no exchange {exchange}: `deviceops run` declares it; "
                "or is another virtual host or DEVICEOPS_TOPOLOGY_PREFIX meant?"
            )
        case DeliveryError(frame=Basic.Return(reply_code=312)):
            return DeviceopsError(
                f"{named}: 312 NO_ROUTE, the user {user} may write to the exchange {exchange}, but it leads to no "
                "queue: `deviceops run` binds one"
            )
        case DeliveryError(frame=Basic.Nack()):
            return DeviceopsError(
                f"{named}: the queue that the exchange {exchange} leads to refuses it: is it full?"
            )
        case DeliveryError():
            return DeviceopsError(f"{named}: the broker refuses it: {describe_error(error)}")
        case TypeError() | ValueError():
            return DeviceopsError(f"{named}: AMQP cannot carry its properties or headers: {error}")
    if is_broker_error(error):
        return DeviceopsError(f"{named}: the broker does not confirm it: {describe_error(error)}")
    return error


async def _publish(destination: Destination, message: Message) -> None:
    type_ = message.type or REPORT
    origin = message.origin()
    given = {name: origin.properties[name] for name in _KEPT_PROPERTIES if name in origin.properties}
    await destination.exchange.publish(
        aio_pika.Message(
            body=message.body,
            delivery_mode=DeliveryMode.PERSISTENT,
            # The client would generate an id, and the same line published again would not be a duplicate.
            message_id=message.message_id or body_id(message.body),
            type=type_,
            timestamp=message.sent_at,
            headers=dict(origin.headers),
            user_id=destination.user,  # which the broker verifies
            **{"content_type": "application/json", **given},
        ),
        routing_key=origin.routing_key or routing_key(message),
        timeout=CONFIRM_TIMEOUT,
    )


def routing_key(message: Message) -> str:
    """The id of its operation, so that partitions follow operations; its type if it names none, or several."""
    return str(operation_of(message) or message.type or REPORT)
