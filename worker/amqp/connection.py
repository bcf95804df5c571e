"""Connections to RabbitMQ, and what its errors mean."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ConnectionClosed,
    ProbableAuthenticationError,
)
from aiormq.exceptions import ConnectionNotAllowed, InvalidFrameError
from yarl import URL

from worker.amqp.frames import Wire
from worker.config import tls
from worker.config.settings import Settings, without_password
from worker.errors import DeviceopsError, SettingsError

CONNECT_TIMEOUT = 10
"""Seconds to wait for the broker to answer, where its URL does not say."""
CLOSE_TIMEOUT = 3
"""Seconds that a connection may take to close; a broker that hangs is left alone then."""

BROKER_ERRORS = (AMQPError, ChannelInvalidStateError, OSError)
_NOT_ALLOWED = 530
"""AMQP's reply code for a virtual host that is not to be entered."""
_MISSES = (ConnectionNotAllowed, InvalidFrameError)
_REFUSALS = (AuthenticationError, ProbableAuthenticationError)
_UNKNOWN_HOST = {socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY}
"""That a name is unknown, not that no server of names answers."""


class BrokerUnavailable(DeviceopsError):
    """No connection can be had; the message says why, without the password."""


class BrokerRefused(BrokerUnavailable):
    """Trying again will not help as things are: a wrong password, an untrusted certificate, no file of it."""


class BrokerMissing(BrokerRefused):
    """There is no such host or virtual host, or it is not to be entered: once it was, it may be again."""


class Connection(aio_pika.Connection):
    """A connection that can be dropped: the client waits for minutes for a broker that takes no more bytes."""

    def __init__(self, url: URL, *arguments: Any, **options: Any) -> None:
        super().__init__(url, *arguments, **options)
        self.wire = self.kwargs["transport_factory"] = Wire()

    def drop(self) -> None:
        """End it at once, whatever has not been sent."""
        if self.wire.transport is not None:
            self.wire.transport.abort()


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Connection]:
    """A connection for the length of a block.

    Raises BrokerUnavailable if none can be had, BrokerRefused if there is no use in trying again.
    """
    broker = without_password(settings.amqp_url)
    try:
        fresh = settings.with_broker_login()
        url = URL(fresh.amqp_url.get_secret_value())
        connection = await aio_pika.connect(
            url,
            timeout=float(url.query.get("timeout", CONNECT_TIMEOUT)),
            ssl_context=fresh.amqp_tls(),
            client_properties={"connection_name": url.query.get("name", "deviceops")},
            connection_class=Connection,
        )
        assert isinstance(connection, Connection)
    except SettingsError as error:  # a file that was good at the start: it may just be written anew
        raise BrokerRefused(f"broker {broker}: {error}") from error
    except BROKER_ERRORS as error:
        hint = _wanted(settings) if _hung_up(error) else ""
        raise _kind(error)(f"broker {broker}: {explain(error)}{hint}") from error
    try:
        yield connection
    finally:
        await _close(connection)


async def _close(connection: Connection) -> None:
    closing = asyncio.ensure_future(connection.close())
    _, late = await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT)
    if late:
        connection.drop()
    await closing


def is_of_broker(error: BaseException) -> bool:
    """Whether a failure is the broker's, or the connection's to it.

    What waits on a connection that closes, the client ends with a bare Exception, or as if its task was cancelled.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, BROKER_ERRORS) or type(error) is Exception


def explain(error: BaseException) -> str:
    """A broker error in one line."""
    if isinstance(error, asyncio.CancelledError) or type(error) is Exception:
        return "the connection was closed"
    if isinstance(error, InvalidFrameError):  # how the client takes a refusal to open the virtual host
        return "closed the connection; does the virtual host exist, and may the user enter it?"
    if isinstance(error, AuthenticationError):
        return f"offers {error.args[0]} to sign in by, and not what the parameter auth says"
    if (trouble := tls.trouble(error)) is not None:
        return tls.explain(trouble)
    reason = error.strerror if isinstance(error, OSError) else None
    text = " ".join((reason or str(error)).split())
    return text or ("does not answer" if isinstance(error, TimeoutError) else type(error).__name__)


def _wanted(settings: Settings) -> str:
    """What a broker may have missed that hangs up. In TLS 1.3 what it says of that may be lost on the way."""
    if settings.amqp_url.get_secret_value().startswith("amqp:"):
        return "; does it want TLS (amqps://)?"
    if settings.amqp_cert_file is None:
        return "; does it want a client certificate?"
    return "; does it know who issued our certificate?"


def _hung_up(error: BaseException) -> bool:
    return isinstance(error.__cause__, ConnectionResetError | asyncio.IncompleteReadError)


def _kind(error: BaseException) -> type[BrokerUnavailable]:
    if (trouble := tls.trouble(error)) is not None:
        return BrokerRefused if tls.is_refusal(trouble) else BrokerUnavailable
    if _is_unknown_host(error) or isinstance(error, _MISSES):
        return BrokerMissing
    if isinstance(error, ConnectionClosed) and error.args[:1] == (_NOT_ALLOWED,):
        return BrokerMissing
    return BrokerRefused if isinstance(error, _REFUSALS) else BrokerUnavailable


def _is_unknown_host(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, socket.gaierror):  # the client wraps it
        error = error.__cause__
    return error is not None and error.errno in _UNKNOWN_HOST
