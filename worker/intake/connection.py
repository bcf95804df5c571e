"""Connections to RabbitMQ, and what its errors mean."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ConnectionClosed,
    ProbableAuthenticationError,
)
from aiormq.exceptions import ConnectionNotAllowed, InvalidFrameError

from worker import tls
from worker.errors import DeviceopsError, SettingsError
from worker.settings import Settings, without_password

CONNECT_TIMEOUT = 10
"""Seconds to wait for the broker to answer."""
CLOSE_TIMEOUT = 3
"""Seconds that a connection may take to close; a broker that hangs is left alone then."""

BROKER_ERRORS = (AMQPError, ChannelInvalidStateError, OSError)
_NOT_ALLOWED = 530
"""AMQP's reply code for a virtual host that is not to be entered."""
_REFUSALS = (AuthenticationError, ProbableAuthenticationError, ConnectionNotAllowed, InvalidFrameError)


class BrokerUnavailable(DeviceopsError):
    """No connection can be had; the message says why, without the password."""


class BrokerRefused(BrokerUnavailable):
    """Trying again will not help as things are: a wrong password or virtual host, an untrusted certificate."""


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[AbstractConnection]:
    """A connection for the length of a block.

    Raises BrokerUnavailable if none can be had, BrokerRefused if there is no use in trying again.
    """
    broker = without_password(settings.amqp_url)
    try:
        connection = await aio_pika.connect(
            settings.amqp_url.get_secret_value(),
            timeout=CONNECT_TIMEOUT,
            ssl_context=settings.amqp_tls(),
            client_properties={"connection_name": "deviceops"},
        )
    except SettingsError as error:  # a file that was good at the start: it may just be written anew
        raise BrokerUnavailable(f"broker {broker}: {error}") from error
    except BROKER_ERRORS as error:
        kind = BrokerRefused if _is_refusal(error) else BrokerUnavailable
        hint = "; does it want TLS (amqps://)?" if _hung_up(error) and broker.startswith("amqp:") else ""
        raise kind(f"broker {broker}: {explain(error)}{hint}") from error
    try:
        yield connection
    finally:
        await _close(connection)


async def _close(connection: AbstractConnection) -> None:
    closing = asyncio.ensure_future(connection.close())
    await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT)
    closing.cancel()  # not awaited: it may wait for the broker whatever it is told


def explain(error: BaseException) -> str:
    """A broker error in one line."""
    if isinstance(error, InvalidFrameError):  # how the client takes a refusal to open the virtual host
        return "closed the connection; does the virtual host exist, and may the user enter it?"
    if (trouble := tls.trouble(error)) is not None:
        return tls.explain(trouble)
    text = " ".join(str(error).split())
    return text or ("does not answer" if isinstance(error, TimeoutError) else type(error).__name__)


def _hung_up(error: BaseException) -> bool:
    return isinstance(error.__cause__, ConnectionResetError | asyncio.IncompleteReadError)


def _is_refusal(error: BaseException) -> bool:
    if (trouble := tls.trouble(error)) is not None:
        return tls.is_refusal(trouble)
    if isinstance(error, ConnectionClosed):
        return isinstance(error, _REFUSALS) or error.args[:1] == (_NOT_ALLOWED,)
    return isinstance(error, _REFUSALS)
