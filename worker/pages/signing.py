"""Signing in with a token of the HTTP API, and signing out."""

from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from worker.api.context import Shared
from worker.api.responses import ApiError
from worker.config import api_tokens
from worker.model.text import one_line
from worker.pages import audit
from worker.pages.access import COOKIE, SIGN_IN, pages_of, safe_next
from worker.pages.errors import environment
from worker.pages.page import Page, cookie_options, may
from worker.pages.routing import PageRoute
from worker.pages.sessions import LASTS

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_log = structlog.get_logger()


@router.get(SIGN_IN, response_class=HTMLResponse)
async def show_sign_in(request: Request, shared: Shared, next: str = "/") -> Response:  # noqa: A002  # in addresses
    """The form, or what is signed in already."""
    pages = pages_of(request)
    if pages.tokens is None or await pages.sessions.find(shared, request.cookies.get(COOKIE)) is not None:
        return RedirectResponse(safe_next(next), HTTPStatus.SEE_OTHER)
    return _form(next)


@router.post(SIGN_IN, response_class=HTMLResponse)
async def sign_in(
    request: Request,
    shared: Shared,
    token: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",  # noqa: A002  # in addresses
) -> Response:
    """Begin a session."""
    pages = pages_of(request)
    if pages.tokens is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "no tokens are configured: nothing is to be signed in")
    caller = api_tokens.find(pages.tokens, token.strip())
    if caller is None:
        client = request.client.host if request.client else ""
        if pages.attempts.fail(client):
            raise ApiError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many wrong tokens; try again in a minute",
                headers={"Retry-After": "60"},
            )
        _log.warning("sign-in refused: unknown token", client=one_line(client))
        return _form(next, "This token is not known.", HTTPStatus.UNAUTHORIZED)
    request.scope["user"] = caller
    async with shared.writing.write(is_counted=False) as connection:
        cookie = await pages.sessions.open(connection, caller)
        await audit.record(connection, request, "sign-in", caller.name, {})
    response = RedirectResponse(safe_next(next), HTTPStatus.SEE_OTHER)
    response.set_cookie(COOKIE, cookie, **cookie_options(request, int(LASTS.total_seconds())))
    return response


@router.post("/sign-out", response_class=HTMLResponse)
async def sign_out(request: Request, page: Annotated[Page, may(None)]) -> Response:
    """End the session."""
    if page.session is not None:
        async with page.shared.writing.write(is_counted=False) as connection:
            await pages_of(request).sessions.end(connection, page.session)
            await audit.record(connection, request, "sign-out", page.caller.name, {})
        pages_of(request).sessions.forget(page.session)
    response = RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    response.delete_cookie(COOKIE)
    return response


def _form(address: str, problem: str = "", status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    template = environment.get_template("sign_in.html")
    return HTMLResponse(template.render(next=safe_next(address), problem=problem), status)
