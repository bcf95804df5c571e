"""What calls answer: documents in the API reference's shapes, and one shape for every error."""

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
from worker.model.text import one_line

Result = TypeVar("Result", bound=BaseModel)

RETRY_AFTER = 1
"""Seconds after which somebody may ask again whom the database could not serve."""
MAX_FAULTS = 10
"""Faults of one request that are told."""


class Content(BaseModel, Generic[Result]):
    """A document in its wrapping."""

    content: Result


class Standing(BaseModel):
    """Where a device operation stands that a report contradicts, and what a report may move it to."""

    current_state: str | None
    reported_state: str
    allowed_states: list[str]

    @classmethod
    def of(cls, current: State | None, reported: State) -> "Standing":
        """The same of states."""
        allowed = sorted(ABOVE[current]) if current else []
        return cls(
            current_state=current.name if current else None,
            reported_state=reported.name,
            allowed_states=[state.name for state in allowed],
        )


class Fault(BaseModel):
    """What is wrong with a request, and where."""

    where: str
    problem: str


class Faults(BaseModel):
    """Everything that is wrong with a request; the first ten of it."""

    faults: list[Fault]


class Error(BaseModel):
    """Every error: the HTTP status, what is wrong in words, and more about it where there is more to say."""

    code: int
    message: str
    content: Standing | Faults | None = None


class Refusal(HTTPException):
    """An error that is answered."""

    def __init__(
        self,
        status: int,
        message: str,
        content: Standing | Faults | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.content = content


def error(
    status: int,
    message: str,
    content: Standing | Faults | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error as a response."""
    body = Error(code=status, message=message, content=content)
    return JSONResponse(body.model_dump(mode="json"), status, headers)


async def answer_refusal(request: Request, refusal: Exception) -> JSONResponse:
    """Answer what a call, or the framework, refuses."""
    assert isinstance(refusal, HTTPException)
    content = refusal.content if isinstance(refusal, Refusal) else None
    headers = refusal.headers
    if refusal.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return error(refusal.status_code, str(refusal.detail), content, headers)


def _methods(request: Request) -> set[str]:
    """The methods of a path: the framework itself names those of one of its calls only."""
    routes = [*request.app.routes, *(route for router in request.app.state.routers for route in router.routes)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    found = {method for route in matching for method in getattr(route, "methods", None) or ()}
    return found | {"HEAD"} if "GET" in found else found


async def answer_faults(request: Request, invalid: Exception) -> JSONResponse:
    """Answer a request that the OpenAPI document does not allow, naming what is wrong with it."""
    assert isinstance(invalid, RequestValidationError)
    findings = invalid.errors()
    content_type = request.headers.get("content-type", "")
    if "json" not in content_type and any(finding["loc"][0] == "body" for finding in findings):
        return error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body has to be JSON, sent as application/json")
    faults = [_fault(finding) for finding in findings[:MAX_FAULTS]]
    message = "; ".join(f"{fault.where}: {fault.problem}" for fault in faults[:3])
    return error(HTTPStatus.BAD_REQUEST, message, Faults(faults=faults))


def _fault(finding: Mapping[str, Any]) -> Fault:
    if finding["type"] == "json_invalid":
        problem = f"is not JSON: {finding['ctx']['error']} at character {finding['loc'][1]}"
        return Fault(where="body", problem=problem)
    # Beside names, a location has where the value came from, and which of several shapes it was taken for.
    where = [str(part) for part in finding["loc"] if part not in _NOT_NAMES]
    problem = one_line(finding["msg"].removeprefix("Value error, "))
    return Fault(where=one_line(".".join(where) or str(finding["loc"][0])), problem=problem)


REPORT, CANCELLATION = "a report", "a cancellation"
"""The shapes of a body of which there are several."""

_NOT_NAMES = ("body", "query", "path", "header", REPORT, CANCELLATION)

_MEANINGS = {
    HTTPStatus.BAD_REQUEST: "The request is not allowed, or contradicts the state: the message says which",
    HTTPStatus.UNAUTHORIZED: "No token, or an unknown one",
    HTTPStatus.FORBIDDEN: "The token, or the service that reports, may not do this",
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not JSON",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A defect of the server; the log has it under the request's id",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database is away: ask again after the time that `Retry-After` says",
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
    """The errors of a call, for the OpenAPI document: those of every call, and more."""

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
    HTTPStatus.UNAUTHORIZED: "a bearer token is needed",
    HTTPStatus.FORBIDDEN: "the token 'dashboard' has not the scope update:operation",
    HTTPStatus.SERVICE_UNAVAILABLE: "the database is away; try again",
}
