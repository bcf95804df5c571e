"""Mounts the page into the application of the HTTP API, whose document and answers stay as they are."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import Lifespan

from worker.api.responses import handle_http_error
from worker.config.api_tokens import Token
from worker.config.settings import Settings
from worker.pages import (
    audit_log,
    dead_letter,
    dead_letter_jobs,
    dead_letters,
    devices,
    events,
    operations,
    search,
    signing,
    static_files,
    system,
)
from worker.pages.access import Pages
from worker.pages.errors import error_page
from worker.pages.facts import Facts
from worker.pages.live import Live
from worker.pages.operation import announce, cancel, retry, show
from worker.pages.operation import devices as devices_of_operation
from worker.pages.renderings import Renderings
from worker.pages.routing import HEADERS
from worker.pages.sessions import Sessions

ROUTERS = (
    static_files.router,
    signing.router,
    events.router,
    operations.router,
    announce.router,
    cancel.router,
    devices_of_operation.router,
    retry.router,
    show.router,
    search.router,
    dead_letters.router,
    dead_letter_jobs.router,
    dead_letter.router,
    devices.router,
    audit_log.router,
    system.router,
)
"""A room is a router here. More specific paths come before those with parameters."""


def mount(app: FastAPI, tokens: Mapping[str, Token] | None, settings: Settings) -> None:
    """Add all pages to an application that `worker.api.app.create_app` has made, with the tokens that it knows."""
    live = Live(app.state.context.feed)
    facts = Facts(settings, app.state.context.database)
    app.state.pages = Pages(tokens, Sessions(tokens or {}), live, Renderings(live.versions), facts)
    app.state.routers = (*app.state.routers, *ROUTERS)  # for the methods of a path
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(HTTPException, _handle_http_error)
    app.router.lifespan_context = _ending_jobs(app, app.router.lifespan_context)


def _ending_jobs(app: FastAPI, lifespan: Lifespan[Any]) -> Lifespan[Any]:
    """The application's lifespan, at whose end jobs end after the portions that run."""

    @asynccontextmanager
    async def ending_jobs(asgi: Any) -> AsyncIterator[Any]:
        async with lifespan(asgi) as state:
            try:
                yield state
            finally:
                await app.state.pages.jobs.close()

    return ending_jobs


async def _handle_http_error(request: Request, error: Exception) -> Response:
    """Answer with JSON as the API does; a browser that asks for a page that does not exist gets HTML."""
    assert isinstance(error, HTTPException)
    is_of_page = not request.url.path.startswith("/v0/") and "text/html" in request.headers.get("accept", "")
    if not is_of_page or error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        return await handle_http_error(request, error)
    return error_page(request, HTTPStatus.NOT_FOUND, "There is no page at this address.", HEADERS)
