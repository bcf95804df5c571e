"""HEAD requests: the response of GET without its body."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Handles HEAD as GET, sends only the start of the response, and ends streams of events."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        begun = asyncio.Event()
        given = False

        async def receive_nothing() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await begun.wait()
            return {"type": "http.disconnect"}  # so that a stream ends

        async def send_beginning(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                begun.set()

        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive_nothing, send_beginning)
        finally:
            scope.update({**inner, "method": "HEAD"})  # keeps the route, for the log and the metrics
        if begun.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
