"""The outermost middleware: request log and metrics, size limits, responses to unhandled errors."""

import time
from http import HTTPStatus

import structlog
from asgi_correlation_id import correlation_id
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.api import responses
from worker.api.forwarded import names_a_host
from worker.api.metrics import RequestMetrics
from worker.model.text import one_line
from worker.store.errors import is_database_error, one_line_error

MAX_BODY = 2_000_000
"""Bytes of a body: an announcement of about 50,000 devices. Announcing again adds more devices."""
MAX_HEADERS = 16_384
"""Bytes of the request target and the headers."""

_log = structlog.get_logger()


class RequestMiddleware:
    """Logs and counts every request, enforces size limits, and turns unhandled errors into responses."""

    def __init__(self, app: ASGIApp, requests: RequestMetrics) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = answered = time.perf_counter()
        status = received = 0
        trouble: dict[str, str] = {}

        async def send_and_note(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.perf_counter()
            await send(message)

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            _bound(received)
            return message

        try:
            _check(scope)
            await self._app(scope, receive_bounded, send_and_note)
        except Exception as error:  # every request gets a response  # noqa: BLE001
            if is_database_error(error):  # logged in full once per outage, by `Database.condition`
                trouble["error"] = one_line_error(error)
            response = _answer(error)
            if status == 0:
                await response(scope, receive, send_and_note)
        finally:
            self._requests.note(scope, status, (answered if status else time.perf_counter()) - started)
            caller = scope.get("user")
            _log.info(
                "request",
                method=one_line(scope["method"]),
                path=one_line(scope["path"]),
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1_000, 1),
                caller=getattr(caller, "name", None),
                request_id=correlation_id.get(),
                **trouble,
            )


def _check(scope: Scope) -> None:
    if scope["path"].endswith("\n"):
        # Starlette's routes match it without the newline, since `$` matches before a final newline.
        raise responses.ApiError(HTTPStatus.NOT_FOUND, "the path ends in a newline")
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size + len(scope["raw_path"]) + len(scope["query_string"]) > MAX_HEADERS:
        message = f"the request target and the headers are larger than {MAX_HEADERS:,} bytes"
        raise responses.ApiError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)
    headers = Headers(scope=scope)
    host = headers.get("host")
    if host is not None and not names_a_host(host):
        raise responses.ApiError(HTTPStatus.BAD_REQUEST, "the header Host is not a host")
    _bound(int(headers.get("content-length", "0")))


def _bound(size: int) -> None:
    # FastAPI has a limit too, but its response has another shape.
    if size > MAX_BODY:
        message = f"the body is larger than {MAX_BODY:,} bytes"
        raise responses.ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def _answer(error: Exception) -> Response:
    if isinstance(error, responses.ApiError):
        return responses.error(error.status_code, str(error.detail))
    if is_database_error(error):
        headers = {"Retry-After": str(responses.RETRY_AFTER)}
        return responses.error(
            HTTPStatus.SERVICE_UNAVAILABLE, "the database is unavailable; try again", headers=headers
        )
    _log.error("unhandled error", request_id=correlation_id.get(), exc_info=error)
    message = f"internal error; the server's log has it under request id {correlation_id.get()}"
    return responses.error(HTTPStatus.INTERNAL_SERVER_ERROR, message)
