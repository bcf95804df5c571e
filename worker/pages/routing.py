"""The route class of all pages: security headers, the origin of each POST, errors as HTML."""

import re
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

import structlog
from asgi_correlation_id import correlation_id
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException

from worker.api.responses import RETRY_AFTER, ApiError, faults_of
from worker.api.routing import Route
from worker.pages import access
from worker.pages.errors import error_page, hop_page
from worker.store.errors import is_database_error

_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""Of every response of a page. The referrer is not `no-referrer`, with which browsers send `Origin: null`."""

_LOCAL_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2})?")
_OF_TIMES = "_after", "_before", "since", "until"
"""Ends of the names of parameters that are times."""

_log = structlog.get_logger()


class PageRoute(Route):
    """Answers with HTML whatever happens, and takes query parameters as forms send them.

    One that is empty counts as not given; a time without a zone, of a field of type `datetime-local`, is in UTC.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler with these checks."""
        handle = super().get_route_handler()

        async def handle_request(request: Request) -> Response:
            try:
                response = await _handled(handle, request)
            except Exception as error:  # every request gets a page  # noqa: BLE001
                response = await _answer(request, error)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return handle_request


async def _handled(handle: Callable[[Request], Coroutine[Any, Any, Response]], request: Request) -> Response:
    if request.method == "GET":
        given = parse_qsl(request.url.query, keep_blank_values=True)
        query = urlencode([(name, _with_zone(name, value)) for name, value in given if value])
        request.scope["query_string"] = query.encode()
        return await handle(Request(request.scope, request.receive))
    access.require_own_origin(request)
    _, options = parse_options_header(request.headers.get("content-type"))
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Forms are read in UTF-8.")
    try:
        return await handle(request)
    finally:
        access.pages_of(request).renderings.clear()


def _with_zone(name: str, value: str) -> str:
    return f"{value}Z" if name.endswith(_OF_TIMES) and _LOCAL_TIME.fullmatch(value) else value


_NOT_DONE = "What you sent was not done, as far as is known: go back, look, and send it again."


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, access.FromElsewhere):
        return hop_page(request)
    if isinstance(error, access.SignInRequired):
        return _to_sign_in(request)
    if isinstance(error, RequestValidationError):
        error = ApiError(
            HTTPStatus.BAD_REQUEST, "; ".join(f"{each.where}: {each.problem}" for each in faults_of(error))
        )
    if isinstance(error, HTTPException):
        return error_page(request, error.status_code, str(error.detail), error.headers)
    if is_database_error(error):
        is_act = request.method == "POST"
        message = f"The database does not answer. {_NOT_DONE if is_act else 'This page tries again by itself.'}"
        headers = {"Retry-After": str(RETRY_AFTER)}
        return error_page(request, HTTPStatus.SERVICE_UNAVAILABLE, message, headers)
    _log.error("unhandled error", request_id=correlation_id.get(), exc_info=error)
    message = f"Internal error; the server's log has it under request id {correlation_id.get()}."
    return error_page(request, HTTPStatus.INTERNAL_SERVER_ERROR, message)


def _to_sign_in(request: Request) -> Response:
    address = access.sign_in_address(request)
    if "hx-request" in request.headers:
        return Response(status_code=HTTPStatus.OK, headers={"HX-Redirect": address})
    if request.headers.get("accept", "").startswith("text/event-stream"):
        return error_page(request, HTTPStatus.UNAUTHORIZED, "signed out")
    return RedirectResponse(address, HTTPStatus.SEE_OTHER)
