"""`/livez`, `/readyz` and `/metrics` on a port of their own, served by the worker's own event loop.

A worker with a blocked loop does not answer. `/readyz` is 200, or 503 with the reasons.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from socket import socket

import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from worker.config.types import Address
from worker.errors import DeviceopsError
from worker.listener import HttpServer, listen, url_of
from worker.watch.health import Health

_log = structlog.get_logger()

Metrics = Callable[[], Awaitable[bytes]]
"""The text of the metrics, as Prometheus reads it."""


@asynccontextmanager
async def serving(address: Address, health: Health, metrics: Metrics) -> AsyncIterator[None]:
    """Serve probes for the duration of a block. Raises DeviceopsError if a configured port is in use."""
    with _listen(address) as listener:
        _log.info("answering probes", url=url_of(listener))
        server = HttpServer(
            uvicorn.Config(
                _app(health, metrics),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving


def _listen(address: Address) -> socket:
    try:
        return listen(address.host, address.port)
    except DeviceopsError as error:
        if address.is_explicit:
            raise
        _log.warning("default probe port in use, using a free one", error=str(error))
        return listen(address.host, 0)  # a second worker on the same machine


def metrics_of(registry: CollectorRegistry) -> Metrics:
    """The metrics of a registry."""

    async def latest() -> bytes:
        return generate_latest(registry)

    return latest


def _app(health: Health, metrics: Metrics) -> Starlette:
    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        if errors := health.errors:
            return JSONResponse({"status": "not ready", "reasons": errors}, HTTPStatus.SERVICE_UNAVAILABLE)
        return JSONResponse({"status": "ready"})

    async def shown(_: Request) -> Response:
        return Response(await metrics(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", shown)],
    )
