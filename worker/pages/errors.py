"""Errors as pages, and as notices for parts of a page."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import HTMLResponse

from worker.api.responses import RETRY_AFTER
from worker.pages.templating import make_environment

environment = make_environment()

_TITLES = {
    HTTPStatus.BAD_REQUEST: "This address has a mistake",
    HTTPStatus.FORBIDDEN: "Not allowed",
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.SERVICE_UNAVAILABLE: "Unavailable",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many attempts",
}


def error_page(
    request: Request, status: int, message: str, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """An error as a page, or as a notice that is shown above a page whose part was asked for."""
    code, is_read = HTTPStatus(status), request.method == "GET"
    template = "notice.html" if "hx-request" in request.headers else "error.html"
    text = environment.get_template(template).render(
        title=_TITLES.get(code, code.phrase),
        status=status,
        message=message,
        retry_after=RETRY_AFTER + 1 if code is HTTPStatus.SERVICE_UNAVAILABLE and is_read else None,
        address=request.url.path,
        caller=request.scope.get("user") if hasattr(request.scope.get("user"), "scopes") else None,
    )
    return HTMLResponse(text, status, dict(headers or {}))


def hop_page(request: Request) -> HTMLResponse:
    """A page that loads the same address again, as a request of this site."""
    address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return HTMLResponse(environment.get_template("hop.html").render(address=address))
