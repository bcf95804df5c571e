"""Decompresses request bodies (`Content-Encoding`: gzip, deflate) and removes a byte order mark."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.api import responses
from worker.api.middleware import MAX_BODY
from worker.model.compression import Unreadable, unpacked
from worker.model.encodings import BOM


class DecompressionMiddleware:
    """Passes on the decompressed body, at most `MAX_BODY` bytes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. Raises ApiError (400) if its body cannot be decompressed."""
        if scope["type"] != "http" or scope["method"] not in ("PUT", "POST", "PATCH"):
            await self._app(scope, receive, send)
            return
        encoding = Headers(scope=scope).get("content-encoding")
        is_given = False

        async def plain() -> Message:
            nonlocal is_given
            if is_given:
                return await receive()
            is_given = True
            parts, message = [], await receive()
            while message["type"] == "http.request":
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    return {"type": "http.request", "body": _plain(b"".join(parts), encoding), "more_body": False}
                message = await receive()
            return message

        await self._app(scope, plain, send)


def _plain(body: bytes, encoding: str | None) -> bytes:
    try:
        return unpacked(body, MAX_BODY, encoding).removeprefix(BOM) if body else body
    except Unreadable as error:
        message = str(error).replace("content_encoding", "Content-Encoding")
        raise responses.ApiError(HTTPStatus.BAD_REQUEST, message) from None
