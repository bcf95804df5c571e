"""Runs the HTTP API until SIGTERM or SIGINT."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from http import HTTPStatus
from uuid import uuid4

import h11
import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.api.app import create_app
from worker.api.auth import is_loopback
from worker.api.context import Context
from worker.api.export import ABORT
from worker.api.feed import Feed
from worker.api.forwarded import ForwardedMiddleware
from worker.api.metrics import AbortMetrics, RequestMetrics, register_subscriber_gauge
from worker.api.middleware import MAX_HEADERS
from worker.api.responses import error
from worker.config.api_tokens import Token
from worker.config.settings import Settings
from worker.listener import HttpServer, listen, url_of
from worker.model.text import one_line
from worker.store.database import Database
from worker.watch import probes
from worker.watch.health import Health
from worker.watch.process_metrics import registry_of_process

LOOPBACK = "127.0.0.1"
SHUTDOWN_TIMEOUT = 10
"""Seconds that running requests get to end at shutdown."""

_log = structlog.get_logger()


class _Protocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Give requests a way to abort their connection."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, ABORT: transport.abort}

    def send_400_response(self, msg: str) -> None:
        """Respond to invalid HTTP with the error shape of this API."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # a response has begun
            return
        id_ = uuid4().hex
        _log.info("request", method=None, path=None, status=HTTPStatus.BAD_REQUEST.value, request_id=id_)
        answer = error(HTTPStatus.BAD_REQUEST, one_line(msg), headers={"X-Request-ID": id_, "Connection": "close"})
        response = h11.Response(status_code=answer.status_code, headers=answer.raw_headers)
        for event in (response, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


Mount = Callable[[FastAPI, Mapping[str, Token] | None, Settings], None]
"""Adds routes to the application, given the tokens that it knows, None without tokens, and the settings."""


async def serve(settings: Settings, database: Database, writing: Database, mount: Mount) -> None:
    """Serve until SIGTERM or SIGINT; `writing` is the same database with a pool for writers.

    `mount` adds the web page. Raises DeviceopsError if the address cannot be listened on.
    """
    host = settings.http_host
    if not settings.api_tokens:
        if not is_loopback(host):
            _log.warning("no API tokens: listening on loopback only, DEVICEOPS_HTTP_HOST is ignored", host=host)
            host = LOOPBACK
        else:
            _log.warning("no API tokens: any caller on this machine is allowed, no other")
    feed = Feed(database, writing)
    registry = registry_of_process({"reading": database, "writing": writing})
    register_subscriber_gauge(registry, feed)
    context = Context(database, writing, settings.reporters, feed, AbortMetrics(registry).note)
    tokens = settings.api_tokens or None
    app = create_app(context, tokens, RequestMetrics(registry))
    mount(app, tokens, settings)
    config = uvicorn.Config(
        ForwardedMiddleware(app, settings.http_proxies),  # type: ignore[arg-type]
        http=_Protocol,
        h11_max_incomplete_event_size=MAX_HEADERS,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # replaced by ForwardedMiddleware
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )
    stopping = asyncio.Event()
    with listen(host, settings.http_port) as listener:
        url = url_of(listener)
        _log.info("listening", url=url, docs=f"{url}/docs")
        server = HttpServer(config)

        def stop() -> None:
            server.force_exit = server.should_exit  # the second signal ends it at once
            server.should_exit = True
            stopping.set()
            feed.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        async with probes.serving(settings.api_probes, Health((), stopping), probes.metrics_of(registry)):
            await server.serve(sockets=[listener])
    _log.info("stopped")
