"""One attempt: a POST to an address that may be connected to, with bounds on all that a receiver may do.

aiohttp is imported with this module, which is imported where something is sent.
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, cast

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from worker.config.public_addresses import is_public
from worker.config.webhooks import Webhook
from worker.model.text import one_line
from worker.webhooks.answer import Answer
from worker.webhooks.message import Message, headers
from worker.webhooks.resolving import resolve
from worker.webhooks.schedule import asked_pause

TIMEOUT = 15
"""Seconds of an attempt, from looking its address up to the status of the answer."""
READ_TIMEOUT, READ = 1, 65_536
"""Maximum seconds and bytes for which the rest of an answer is read: it is of no use but to end in order."""
LONGEST_ANSWER = 98_304
"""Bytes of an answer, with any 100 Continue before it, after which the connection is dropped."""
TOO_LONG = "the answer is too long"
LONGEST_REASON = 200
"""Characters."""


class NotPublic(OSError):
    """The address is not public."""


class Client:
    """Sends to webhooks; each has connections of its own, and each attempt a new one, so that each is checked."""

    def __init__(self) -> None:
        self._tls = ssl.create_default_context()  # reads the certificates of all authorities

    async def send(self, webhook: Webhook, message: Message) -> Answer:
        """Attempt to send a message."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._post(webhook, message)
        except TimeoutError:
            return Answer(None, f"no answer within {TIMEOUT} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, _reason(error))

    async def _post(self, webhook: Webhook, message: Message) -> Answer:
        url = yarl.URL(webhook.url.get_secret_value())
        connector = aiohttp.TCPConnector(
            resolver=_Resolver(),
            use_dns_cache=False,
            force_close=True,
            ssl=self._tls,
            socket_factory=_socket if webhook.allow_private else _public_socket,
        )
        factory = cast("partial[ResponseHandler]", partial(_Protocol, loop=asyncio.get_running_loop()))
        connector._factory = factory  # there is no option for it
        async with (
            # trust_env: a proxy would be the one that connects, to addresses that nobody has checked.
            aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            ) as session,
            session.post(
                url,
                data=message.body,
                headers=headers(message, webhook.secret, time.time()),
                allow_redirects=False,
            ) as response,
        ):
            answer = _answer(response.status, response.headers)
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(READ_TIMEOUT):
                    await _read(response.content)
            response.close()
            return answer


class _Protocol(ResponseHandler):
    """Drops a connection whose answer has no end: the library reads any number of 100 Continue at one go."""

    _received = 0

    def data_received(self, data: bytes) -> None:
        """Take what was received, up to `LONGEST_ANSWER`."""
        allowed = LONGEST_ANSWER - self._received
        self._received += len(data)
        if allowed > 0:
            super().data_received(data[:allowed])
        if len(data) > allowed:
            self.set_exception(aiohttp.ServerDisconnectedError(TOO_LONG))
            if self.transport is not None:
                self.transport.abort()


class _Resolver(AbstractResolver):
    """Looks names up by the system's resolver, in threads of its own."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, proto, _, address in await resolve(host, port, family)
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    return socket.socket(family, kind, protocol)


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an address that is about to be connected to, whatever name has led to it."""
    host = str(address[4][0])
    if not is_public(host):
        raise NotPublic(f'{host} is not a public address; "allow_private": true allows it')
    return _socket(address)


async def _read(content: aiohttp.StreamReader) -> None:
    left = READ
    while left > 0 and (chunk := await content.read(left)):
        left -= len(chunk)


def _answer(status: int, received: Mapping[str, str]) -> Answer:
    if 200 <= status < 300:
        return Answer(status, "")
    what = "a redirect, which is not followed" if 300 <= status < 400 else "an error"
    return Answer(status, f"answered {status}, {what}", asked_pause(received.get("Retry-After")))


def _reason(error: BaseException) -> str:
    """Why there was no answer. The texts of some errors have the URL, which may have a secret."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        text = f"the name of the host is not found: {error.os_error.strerror or error.os_error}"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        text = f"the certificate is not accepted: {error.certificate_error}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        text = error.os_error.strerror or str(error.os_error)
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        text = TOO_LONG if error.message == TOO_LONG else "the connection was closed without an answer"
    elif isinstance(error, aiohttp.ClientResponseError):
        text = "the answer is not HTTP"
    elif isinstance(error, OSError) and error.errno is not None:
        text = f"the connection was lost: {os.strerror(error.errno)}"
    else:
        text = type(error).__name__
    return one_line(text)[:LONGEST_REASON]
