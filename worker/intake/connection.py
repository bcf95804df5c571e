"""Connections to RabbitMQ, and what its errors mean."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from aiormq.exceptions import InvalidFrameError
from pydantic import SecretStr

from worker.errors import DeviceopsError
from worker.settings import without_password

CONNECT_TIMEOUT = 10
"""Seconds to wait for the broker to answer."""

BROKER_ERRORS = (AMQPError, ChannelInvalidStateError, OSError)


class BrokerUnavailable(DeviceopsError):
    """No connection can be had; the message says why, without the password."""


class BrokerRefused(BrokerUnavailable):
    """Trying again will not help as things are: a wrong password, no such virtual host."""


@asynccontextmanager
async def connected(url: SecretStr) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    """A connection for the length of a block. Raises BrokerUnavailable if none can be had."""
    try:
        connection = await aio_pika.connect(
            url.get_secret_value(),
            timeout=CONNECT_TIMEOUT,
            client_properties={"connection_name": "deviceops"},
        )
    except BROKER_ERRORS as error:
        raise BrokerUnavailable(f"broker {without_password(url)}: {explain(error)}") from error
    async with connection:
        yield connection


def explain(error: BaseException) -> str:
    """A broker error in one line."""
    if isinstance(error, InvalidFrameError):  # how the client takes a refusal to open the virtual host
        return "closed the connection; does the virtual host exist, and may the user enter it?"
    text = " ".join(str(error).split())
    return text or ("does not answer" if isinstance(error, TimeoutError) else type(error).__name__)
