"""What a route answers with: a whole page, a fragment of one, or a redirect with a message."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from itsdangerous import BadData
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.api.context import Context, Shared
from worker.api.responses import ApiError
from worker.config.api_tokens import Caller, Scope
from worker.model.text import shown
from worker.pages import access
from worker.pages.errors import environment
from worker.pages.live import Live

FLASH = "deviceops_flash"
"""Cookie of a message to the person that the next page shows."""
_FLASH_LASTS = 60
"""Seconds."""
_LONGEST_FLASH = 1_000
"""Characters."""

Make = Callable[[AsyncConnection], Awaitable[Mapping[str, Any]]]
"""Reads what a template needs, in one snapshot of the database."""


class Page:
    """A request of a caller who may see the page; `may` is the dependency that makes it."""

    def __init__(self, request: Request, shared: Context, caller: Caller, session: str | None) -> None:
        self.request = request
        self.shared = shared
        self.caller = caller
        self.session = session
        """The id of the session, None without tokens."""

    @property
    def live(self) -> Live:
        """Publishes topics after an act."""
        return access.pages_of(self.request).live

    def require(self, scope: Scope) -> None:
        """Require a scope in addition to that of the route. Raises ApiError (403)."""
        if scope not in self.caller.scopes:
            raise ApiError(HTTPStatus.FORBIDDEN, f"token {shown(self.caller.name)} lacks scope {scope}")

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A snapshot of the database, for what decides which page is shown."""
        return access.pages_of(self.request).reading(self.shared.database)

    async def whole(
        self,
        template: str,
        make: Make,
        *,
        topics: Iterable[str] = (),
        status: int = HTTPStatus.OK,
    ) -> HTMLResponse:
        """A whole page, which extends `base.html`; its live parts listen to the topics."""
        async with self.reading() as connection:
            values = await make(connection)
        flash = await self._flash()
        text = environment.get_template(template).render(
            **self._common(), **values, flash=flash, events=_events_address(topics)
        )
        response = HTMLResponse(text, status)
        if FLASH in self.request.cookies:
            response.delete_cookie(FLASH)
        return response

    async def fragment(self, template: str, make: Make, *, topics: Iterable[str] = ()) -> HTMLResponse:
        """A part of a page. Shared by all open pages of the same address and scopes, until a topic changes.

        Its template has no name of the caller, and nothing else that differs between callers with the same scopes.
        """

        async def render() -> str:
            async with self.reading() as connection:
                values = await make(connection)
            common = self._common() | {"caller": Caller("", self.caller.scopes)}
            return environment.get_template(template).render(**common, **values)

        url = self.request.url
        key = template, url.path, url.query, self.caller.scopes
        return HTMLResponse(await access.pages_of(self.request).renderings.get(key, topics, render))

    async def go(self, address: str, message: str = "", *, is_error: bool = False) -> RedirectResponse:
        """After an act: a redirect to a page, which shows the message once."""
        response = RedirectResponse(address, HTTPStatus.SEE_OTHER)
        if message:
            signing = await self._signing()
            value = signing.dumps({"text": message[:_LONGEST_FLASH], "is_error": is_error})
            assert isinstance(value, str)
            response.set_cookie(FLASH, value, **cookie_options(self.request, _FLASH_LASTS))
        return response

    def _common(self) -> dict[str, Any]:
        return {"caller": self.caller, "path": self.request.url.path, "query": self.request.url.query}

    async def _flash(self) -> Mapping[str, Any] | None:
        if (value := self.request.cookies.get(FLASH)) is None:
            return None
        try:
            found: Mapping[str, Any] = (await self._signing()).loads(value, max_age=_FLASH_LASTS)
        except BadData:
            return None
        return found

    async def _signing(self) -> Any:
        return await access.pages_of(self.request).sessions.serializer(self.shared, "flash")


def cookie_options(request: Request, seconds: int) -> dict[str, Any]:
    """How our cookies are set: out of reach of scripts and of other sites, over https only where it is used."""
    is_secure = request.url.scheme == "https"
    return {"max_age": seconds, "path": "/", "httponly": True, "samesite": "strict", "secure": is_secure}


def _events_address(topics: Iterable[str]) -> str | None:
    query = urlencode([("topic", topic) for topic in topics])
    return f"/events?{query}" if query else None


def may(scope: Scope | None) -> Any:
    """A FastAPI dependency that gives the `Page` to a caller with a scope; None: to whoever may see pages at all.

    Raises what `access.caller_of` does, and ApiError (403).
    """

    async def page(request: Request, shared: Shared) -> Page:
        caller, session = await access.caller_of(request, shared)
        found = Page(request, shared, caller, session)
        if scope is not None:
            found.require(scope)
        return found

    return Depends(page)
