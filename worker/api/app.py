"""All of the HTTP API put together, and its OpenAPI document."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware

from worker.api import dead_letters, device_operations, events, operations
from worker.api.auth import Tokens, answer_stranger
from worker.api.context import Context
from worker.api.decompression import Unpacking
from worker.api.head_requests import Heads
from worker.api.metrics import Requests
from worker.api.middleware import Edge
from worker.api.responses import answer_faults, answer_refusal
from worker.api.subscriptions import stopped
from worker.config.api_tokens import Token

_ROUTERS = (
    operations.router,
    operations.of_device,
    device_operations.router,
    events.router,
    dead_letters.router,
)
_DESCRIPTION = """
What happens on a fleet of devices while operations roll over it.

Device operations move along a partial order of states; a report from below is `late`, the same state is
`repeated`, and one that contradicts the state is refused. Every error is `{"code", "message", "content"}`;
every response has an `X-Request-ID`, which the server's log has too.
"""
_REQUEST_ID = {
    "description": "The request's id: the caller's `X-Request-ID` if that is a UUID, else a new one.",
    "required": True,
    "schema": {"type": "string"},
}


def create_app(context: Context, tokens: Mapping[str, Token] | None, requests: Requests) -> FastAPI:
    """The application; without tokens (None) it answers who calls it as localhost. `requests` counts them."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(context.changes.run())
        try:
            yield
        finally:
            await stopped(watching)

    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs/assets",
        title="deviceops",
        version=version("deviceops"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        middleware=[
            Middleware(CorrelationIdMiddleware),
            Middleware(Edge, requests=requests),
            Middleware(Heads),
            Middleware(AuthenticationMiddleware, backend=Tokens(tokens), on_error=answer_stranger),
            Middleware(Unpacking),
        ],
        exception_handlers={
            HTTPException: answer_refusal,
            RequestValidationError: answer_faults,
        },
    )
    app.state.context = context
    app.state.routers = _ROUTERS
    for router in _ROUTERS:
        app.include_router(router)
    document = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(document())
        return document()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation extends the document
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _complete(document: dict[str, Any]) -> None:
    """Take out what FastAPI says of itself and does not hold here, and add what holds for every response."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID
    for name in ("HTTPValidationError", "ValidationError", "State"):  # nothing refers to these
        document["components"]["schemas"].pop(name, None)
