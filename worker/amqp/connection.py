"""Connections to RabbitMQ, and the classification of its errors."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
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
from pydantic import SecretStr
from yarl import URL

from worker.amqp.frames import FrameTransport
from worker.config import tls
from worker.config.settings import Settings
from worker.config.urls import without_password
from worker.errors import DeviceopsError, SettingsError
from worker.failover import Failures

CONNECT_TIMEOUT = 10
"""Seconds to wait for the broker's answer, unless its URL sets another timeout."""
CLOSE_TIMEOUT = 2
"""Maximum seconds to close a connection; then it is dropped."""

BROKER_ERRORS = (AMQPError, ChannelInvalidStateError, OSError)
_NOT_ALLOWED = 530
"""AMQP's reply code for a virtual host without permission."""
_MISSING = (ConnectionNotAllowed, InvalidFrameError)
_REFUSALS = (AuthenticationError, ProbableAuthenticationError)
_UNKNOWN_HOST = {socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY}
"""Resolver errors for unknown names, as opposed to an unavailable resolver."""


class BrokerLost(Exception):
    """The broker or the network ended a connection: reconnect."""


class BrokerUnavailable(DeviceopsError):
    """No connection can be made; the message has the reason, without the password."""


class BrokerRefused(BrokerUnavailable):
    """A permanent failure: a wrong password, an untrusted certificate, a missing file."""


class BrokerMissing(BrokerRefused):
    """The host or virtual host does not exist, or access is denied: transient if it has worked before."""


class Connection(aio_pika.Connection):
    """A connection that can be dropped: the client waits minutes for a broker that accepts no more bytes."""

    def __init__(self, url: URL, *arguments: Any, **options: Any) -> None:
        super().__init__(url, *arguments, **options)
        self.frames = self.kwargs["transport_factory"] = FrameTransport()

    @property
    def shown(self) -> str:
        """The node's URL, with the password hidden."""
        return without_password(SecretStr(str(self.url)))

    @property
    def answer_timeout(self) -> float:
        """Seconds to wait for the node's answer."""
        return _answer_timeout(self.url)

    @property
    def server(self) -> Mapping[str, str]:
        """What the broker says of itself: `product`, `version`, `cluster_name`."""
        assert self.transport is not None
        properties = self.transport.connection.server_properties
        return {name: value for name, value in properties.items() if isinstance(value, str)}

    def drop(self) -> None:
        """Close it at once, without sending what is left."""
        if self.frames.transport is not None:
            self.frames.transport.abort()


@asynccontextmanager
async def connected(settings: Settings, failures: Failures | None = None) -> AsyncIterator[Connection]:
    """A connection for the duration of a block, to the first node that answers, in an order drawn by lot.

    `failures` keeps which nodes failed, or were lost in the block: they are tried after the others. Raises
    BrokerUnavailable, or BrokerRefused for a permanent failure.
    """
    failures = failures or Failures()
    try:
        fresh = settings.with_broker_login()
        tls_context = fresh.amqp_tls()
    except SettingsError as error:  # a file that was valid at the start may be in the middle of a rewrite
        raise BrokerRefused(f"broker {without_password(settings.amqp_url)}: {error}") from error
    found: list[tuple[URL, BaseException]] = []
    for node in failures.last(random.sample(fresh.brokers, len(fresh.brokers))):
        try:
            connection = await aio_pika.connect(
                node,
                timeout=_answer_timeout(node),
                ssl_context=tls_context,
                client_properties={"connection_name": node.query.get("name", "deviceops")},
                connection_class=Connection,
            )
            break
        except BROKER_ERRORS as error:
            failures.note(node)
            found.append((node, error))
    else:
        raise _no_connection(settings, found) from found[-1][1]
    assert isinstance(connection, Connection)
    try:
        yield connection
    except BrokerLost:
        failures.note(node)
        raise
    finally:
        await _close(connection)


def _answer_timeout(node: URL) -> float:
    return float(node.query.get("timeout", CONNECT_TIMEOUT))


def _no_connection(settings: Settings, failures: Sequence[tuple[URL, BaseException]]) -> BrokerUnavailable:
    """The error for failures to connect to each node.

    A node's refusal has precedence, as the others of its cluster would refuse as well; then what may pass.
    """
    reasons: dict[str, None] = {}
    for node, error in failures:
        hint = _hint(settings) if _is_hang_up(error) else ""
        where = f"{node.host}, port {node.port}: " if len(failures) > 1 else ""
        reasons[f"{where}{describe_error(error)}{hint}"] = None
    kinds = {_error_class(error) for _, error in failures if not _is_unknown_host(error)} or {BrokerMissing}
    kind = next(kind for kind in (BrokerRefused, BrokerMissing, BrokerUnavailable) if kind in kinds)
    return kind(f"broker {without_password(settings.amqp_url)}: {'; '.join(reasons)}")


async def _close(connection: Connection) -> None:
    closing = asyncio.ensure_future(connection.close())
    _, late = await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT)
    if late:
        connection.drop()
    await closing


def is_broker_error(error: BaseException) -> bool:
    """Whether a failure is the broker's or the connection's.

    The client ends calls on a closing connection with a bare Exception, or as if their task were cancelled.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, BROKER_ERRORS) or type(error) is Exception


def describe_error(error: BaseException) -> str:
    """A broker error in one line."""
    if isinstance(error, asyncio.CancelledError) or type(error) is Exception:
        return "the connection was closed"
    if isinstance(error, InvalidFrameError):  # raised by the client when the virtual host is refused
        return "closed the connection; does the virtual host exist, and may the user enter it?"
    if isinstance(error, AuthenticationError):
        return f"offers {error.args[0]} to sign in by, and not what the parameter auth says"
    if (tls_error := tls.find_error(error)) is not None:
        return tls.describe_error(tls_error)
    reason = error.strerror if isinstance(error, OSError) else None
    text = " ".join((reason or str(error)).split())
    return text or ("does not answer" if isinstance(error, TimeoutError) else type(error).__name__)


def _hint(settings: Settings) -> str:
    """A hint about a missing client certificate. With TLS 1.3 the broker's alert may be lost."""
    if settings.amqp_url.get_secret_value().startswith("amqp:"):
        return "; does it want TLS (amqps://)?"
    if settings.amqp_cert_file is None:
        return "; does it want a client certificate?"
    return "; does it know who issued our certificate?"


def _is_hang_up(error: BaseException) -> bool:
    return isinstance(error.__cause__, ConnectionResetError | asyncio.IncompleteReadError)


def _error_class(error: BaseException) -> type[BrokerUnavailable]:
    if (tls_error := tls.find_error(error)) is not None:
        return BrokerRefused if tls.is_refusal(tls_error) else BrokerUnavailable
    if _is_unknown_host(error) or isinstance(error, _MISSING):
        return BrokerMissing
    if isinstance(error, ConnectionClosed) and error.args[:1] == (_NOT_ALLOWED,):
        return BrokerMissing
    return BrokerRefused if isinstance(error, _REFUSALS) else BrokerUnavailable


def _is_unknown_host(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, socket.gaierror):  # the client wraps it
        error = error.__cause__
    return error is not None and error.errno in _UNKNOWN_HOST
