"""The FastAPI application and its OpenAPI document."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
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

from worker.api import dead_letters, device_operations, events, operations, progress
from worker.api.auth import TokenBackend, unauthorized
from worker.api.context import Context
from worker.api.decompression import DecompressionMiddleware
from worker.api.head_requests import HeadMiddleware
from worker.api.metrics import RequestMetrics
from worker.api.middleware import RequestMiddleware
from worker.api.responses import handle_http_error, handle_validation_error
from worker.config.api_tokens import Token

_ROUTERS = (
    operations.router,
    operations.of_device,
    progress.router,
    device_operations.router,
    events.router,
    dead_letters.router,
)
_DESCRIPTION = """
State of operations on a fleet of devices, and reports about it.

The states of a device operation form a partial order: a report of a higher state is `applied`, of the same
state `repeated`, of a lower state `late`; a state that cannot be compared with the current one is a conflict and
is rejected. Every error is `{"code", "message", "content"}`; every response has an `X-Request-ID`, which is also
in the server's log.
"""
_REQUEST_ID = {
    "description": "Id of the request: the caller's `X-Request-ID` if it is a UUID, else a generated one.",
    "required": True,
    "schema": {"type": "string"},
}


def create_app(context: Context, tokens: Mapping[str, Token] | None, requests: RequestMetrics) -> FastAPI:
    """Create the application. Without tokens (None) only calls from localhost are allowed."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        reading = asyncio.create_task(context.feed.run())
        try:
            yield
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

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
            Middleware(RequestMiddleware, requests=requests),
            Middleware(HeadMiddleware),
            Middleware(AuthenticationMiddleware, backend=TokenBackend(tokens), on_error=unauthorized),
            Middleware(DecompressionMiddleware),
        ],
        exception_handlers={
            HTTPException: handle_http_error,
            RequestValidationError: handle_validation_error,
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

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _complete(document: dict[str, Any]) -> None:
    """Remove schemas that FastAPI adds and this API does not use; add the headers of every response."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID
    for name in ("HTTPValidationError", "ValidationError", "State"):  # unreferenced
        document["components"]["schemas"].pop(name, None)
