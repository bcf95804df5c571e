"""Responses: wrapped documents, and one shape for every error."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from statemachine import ABOVE, State
from worker.model.contract import FIELD
from worker.model.findings import problem as problem_of
from worker.model.text import one_line

Result = TypeVar("Result", bound=BaseModel)

RETRY_AFTER = 1
"""Seconds of `Retry-After` while the database is unavailable."""
MAX_FAULTS = 10
"""Maximum number of faults in a response."""


class Content(BaseModel, Generic[Result]):
    """A document as `{"content": …}`."""

    content: Result


class StateConflict(BaseModel):
    """State of a device operation that a report conflicts with, and the states that are allowed."""

    current_state: str | None
    reported_state: str
    allowed_states: list[str]

    @classmethod
    def of(cls, current: State | None, reported: State) -> "StateConflict":
        """The conflict of a reported state with the current one; None if unregistered."""
        allowed = sorted(ABOVE[current]) if current else []
        return cls(
            current_state=current.name if current else None,
            reported_state=reported.name,
            allowed_states=[state.name for state in allowed],
        )


class Fault(BaseModel):
    """One fault of a request: the field, parameter or header, and the problem."""

    where: str
    problem: str


class Faults(BaseModel):
    """Faults of a request, the first ten."""

    faults: list[Fault]


class Error(BaseModel):
    """Every error: HTTP status, message, and optional details."""

    code: int
    message: str
    content: StateConflict | Faults | None = None


class ApiError(HTTPException):
    """An error response."""

    def __init__(
        self,
        status: int,
        message: str,
        content: StateConflict | Faults | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.content = content


def error(
    status: int,
    message: str,
    content: StateConflict | Faults | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Build an error response."""
    body = Error(code=status, message=message, content=content)
    return JSONResponse(body.model_dump(mode="json"), status, headers)


async def handle_http_error(request: Request, refusal: Exception) -> JSONResponse:
    """Handle an HTTPException of an endpoint or of the framework."""
    assert isinstance(refusal, HTTPException)
    content = refusal.content if isinstance(refusal, ApiError) else None
    headers = refusal.headers
    if refusal.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return error(refusal.status_code, str(refusal.detail), content, headers)


def _methods(request: Request) -> set[str]:
    """All methods of a path; Starlette lists only those of one matching route."""
    routes = [*request.app.routes, *(route for router in request.app.state.routers for route in router.routes)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    found = {method for route in matching for method in getattr(route, "methods", None) or ()}
    return found | {"HEAD"} if "GET" in found else found


async def handle_validation_error(request: Request, invalid: Exception) -> JSONResponse:
    """Handle a request that does not match the OpenAPI document: 400 with its faults."""
    assert isinstance(invalid, RequestValidationError)
    findings = invalid.errors()
    content_type = request.headers.get("content-type", "")
    if "json" not in content_type and any(finding["loc"][0] == "body" for finding in findings):
        return error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be JSON with Content-Type application/json")
    faults = faults_of(invalid)
    message = "; ".join(f"{fault.where}: {fault.problem}" for fault in faults[:3])
    return error(HTTPStatus.BAD_REQUEST, message, Faults(faults=faults))


def faults_of(invalid: RequestValidationError) -> list[Fault]:
    """The first faults of a request that does not match its parameters."""
    return [_fault(finding) for finding in invalid.errors()[:MAX_FAULTS]]


def _fault(finding: Mapping[str, Any]) -> Fault:
    if finding["type"] == "json_invalid":
        problem = f"is not JSON: {finding['ctx']['error']} at character {finding['loc'][1]}"
        return Fault(where="body", problem=problem)
    # A location also contains the source of the value, and the member of a union that was tried.
    where = [str(part) for part in finding["loc"] if part not in _NOT_NAMES]
    if not where and FIELD in finding.get("ctx", {}):
        where = [finding["ctx"][FIELD]]
    return Fault(where=one_line(".".join(where) or str(finding["loc"][0])), problem=one_line(problem_of(finding)))


REPORT, CANCELLATION = "a report", "a cancellation"
ANNOUNCEMENT, RETRY = "an announcement", "a retry"
"""Tags of the unions of bodies."""

_NOT_NAMES = ("body", "query", "path", "header", REPORT, CANCELLATION, ANNOUNCEMENT, RETRY)

_MEANINGS = {
    HTTPStatus.BAD_REQUEST: "The request is invalid, or conflicts with the state; see the message",
    HTTPStatus.UNAUTHORIZED: "Missing or unknown token",
    HTTPStatus.FORBIDDEN: "The token lacks the scope, or the service is not allowed to report this",
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.CONFLICT: "The id is another operation's, or no device operation is to be retried",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not JSON",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Internal error; the server's log has it under the request id",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database is unavailable: try again after `Retry-After` seconds",
}
_ALWAYS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
TAKES_BODY = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


def errors(*more: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Error responses of an endpoint for the OpenAPI document: those of every endpoint, and `more`."""

    def described(status: HTTPStatus) -> dict[str, Any]:
        example = {"code": status.value, "message": _EXAMPLES.get(status, status.phrase.lower()), "content": None}
        return {
            "model": Error,
            "description": _MEANINGS[status],
            "content": {"application/json": {"example": example}},
        }

    return {status.value: described(status) for status in sorted({*_ALWAYS, *more})}


_EXAMPLES: Mapping[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "SUCCESS after FAILURE contradicts it",
    HTTPStatus.UNAUTHORIZED: "a bearer token is required",
    HTTPStatus.FORBIDDEN: "token 'dashboard' lacks scope update:operation",
    HTTPStatus.SERVICE_UNAVAILABLE: "the database is unavailable; try again",
}
