"""What every request passes first: it is logged under its id, and what nobody else has caught is answered."""

import time
from http import HTTPStatus

import structlog
from asgi_correlation_id import correlation_id
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.api import responses
from worker.api.forwarded import names_a_host
from worker.api.metrics import Requests
from worker.model.text import one_line
from worker.store.errors import is_database_error, one_line_error

MAX_BODY = 2_000_000
"""Bytes: an announcement of some 50,000 devices. Announced again, an operation takes more of them."""
MAX_HEADERS = 16_384
"""Bytes of a request's address and headers."""

_log = structlog.get_logger()


class Edge:
    """Logs and counts every request, and answers for what failed in it."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
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
        except Exception as error:  # whatever it is, the caller gets an answer  # noqa: BLE001
            if is_database_error(error):  # of which the database's own condition is one line for each change
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
        # The framework takes it for the path before the newline, which the `$` of a regular expression lets pass.
        raise responses.Refusal(HTTPStatus.NOT_FOUND, "no path ends in a newline")
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size + len(scope["raw_path"]) + len(scope["query_string"]) > MAX_HEADERS:
        message = f"the address and the headers have more than {MAX_HEADERS:,} bytes"
        raise responses.Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)
    headers = Headers(scope=scope)
    host = headers.get("host")
    if host is not None and not names_a_host(host):
        raise responses.Refusal(HTTPStatus.BAD_REQUEST, "the header Host names no host")
    _bound(int(headers.get("content-length", "0")))


def _bound(size: int) -> None:
    # The framework has a bound of its own, but answers in a shape of its own too.
    if size > MAX_BODY:
        message = f"the body is larger than {MAX_BODY:,} bytes"
        raise responses.Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def _answer(error: Exception) -> Response:
    if isinstance(error, responses.Refusal):
        return responses.error(error.status_code, str(error.detail))
    if is_database_error(error):
        headers = {"Retry-After": str(responses.RETRY_AFTER)}
        return responses.error(HTTPStatus.SERVICE_UNAVAILABLE, "the database is away; try again", headers=headers)
    _log.error("a defect", request_id=correlation_id.get(), exc_info=error)
    message = f"a defect of the server; its log has it under the request id {correlation_id.get()}"
    return responses.error(HTTPStatus.INTERNAL_SERVER_ERROR, message)
