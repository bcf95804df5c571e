"""HEAD, answered as GET is, without the body."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Heads:
    """Passes HEAD on as GET, and of the answer only how it begins: a stream that has no end would not end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
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
            return {"type": "http.disconnect"}  # so that what streams stops

        async def send_beginning(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                begun.set()

        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive_nothing, send_beginning)
        finally:
            scope.update({**inner, "method": "HEAD"})  # such as the route, for the log and the metrics
        if begun.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
