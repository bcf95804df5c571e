"""Live parts of open pages, rendered once for all pages that show the same one with the same rights.

A part is the answer of its own route. It is asked for within the process, as the caller of the open page, so that
fifty pages cost one request, and is sent to each over the stream that it has anyway.
"""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import Message, Scope

from worker.api.responses import ApiError
from worker.config.api_tokens import Caller
from worker.pages import access

MAX_SIZE = 2_000_000
"""Bytes of a part."""


class Part(NamedTuple):
    """A part of an open page: the id of its element, its address, and the kinds of topics that it shows."""

    id: str
    address: str
    kinds: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `id kind,kind address`. Raises ApiError (400)."""
        id_, kinds, address = [*text.split(" ", 2), "", ""][:3]
        if not id_.replace("-", "").replace("_", "").isalnum() or access.safe_next(address) != address:
            raise ApiError(HTTPStatus.BAD_REQUEST, "part: is not an id, kinds of topics and an address")
        return cls(id_, address, frozenset(kinds.split(",")))


async def render(part: Part, request: Request, caller: Caller, topics: Iterable[str]) -> bytes | None:
    """The event with what the route of a part answers now to a caller; None if that is an error, or no part.

    `request` is that of the open page. Shared as `renderings` are, by callers with the same scopes.
    """

    async def make() -> bytes:
        return frame(f"part-{part.id}", await _answer(part.address, request, caller))

    key = "part", part.id, part.address, caller.scopes
    try:
        return await access.pages_of(request).renderings.get(key, topics, make)
    except _Failed:
        return None


def frame(name: str, text: str) -> bytes:
    """A server-sent event; browsers join its lines again."""
    lines = "".join(f"data: {line}\n" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return f"event: {name}\n{lines}\n".encode()


class _Failed(Exception):
    """The route answered with an error: each page asks by itself, and shows it."""


async def _answer(address: str, request: Request, caller: Caller) -> str:
    url = urlsplit(address)
    given = request.scope
    scope: Scope = {
        "type": "http",
        "asgi": given["asgi"],
        "http_version": "1.1",
        "method": "GET",
        "scheme": given["scheme"],
        "server": given.get("server"),
        "client": given.get("client"),
        "root_path": "",
        "path": url.path,
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "headers": [(b"host", request.url.netloc.encode()), (b"hx-request", b"true")],
        "state": given.get("state", {}),
        access.WITHIN: caller,
    }
    receiver = _Receiver()
    await request.app(scope, receiver.receive, receiver.send)
    return receiver.text()


class _Receiver:
    """Takes the answer; goes away if it is no part of a page, so that a stream ends."""

    def __init__(self) -> None:
        self._is_given = False
        self._left = asyncio.Event()
        self._found: list[bytes] = []
        self._size = 0

    async def receive(self) -> Message:
        """The request, which has no body; then, if it has gone away, that."""
        if not self._is_given:
            self._is_given = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a piece of the answer."""
        if message["type"] == "http.response.start":
            headers = Headers(raw=message["headers"])
            is_page = "content-security-policy" in headers
            is_html = headers.get("content-type", "").startswith("text/html")
            if message["status"] != HTTPStatus.OK or not is_page or not is_html:
                self._left.set()
            return
        self._size += len(message.get("body", b""))
        if self._size > MAX_SIZE:
            self._left.set()
        elif not self._left.is_set():
            self._found.append(message.get("body", b""))

    def text(self) -> str:
        """The answer. Raises _Failed."""
        if self._left.is_set():
            raise _Failed
        return b"".join(self._found).decode()
