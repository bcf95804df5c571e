"""The HTTP API listens, until it is told to stop."""

import asyncio
import signal
from http import HTTPStatus
from uuid import uuid4

import h11
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.api.app import create_app
from worker.api.auth import is_loopback
from worker.api.context import Context
from worker.api.forwarded import Forwarded
from worker.api.metrics import Requests, count_followers
from worker.api.middleware import MAX_HEADERS
from worker.api.responses import error
from worker.api.subscriptions import Changes
from worker.config.settings import Settings
from worker.listener import Server, listen, url_of
from worker.model.text import one_line
from worker.store.database import Database
from worker.watch.health import Health
from worker.watch.probes import answering
from worker.watch.process_metrics import registry_of_process

LOOPBACK = "127.0.0.1"
PATIENCE = 10
"""Seconds that requests may take to end when the server is to stop."""

_log = structlog.get_logger()


class _Protocol(H11Protocol):
    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as any other error is answered."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer has begun: nothing more can be said
            return
        id_ = uuid4().hex
        _log.info("request", method=None, path=None, status=HTTPStatus.BAD_REQUEST.value, request_id=id_)
        answer = error(HTTPStatus.BAD_REQUEST, one_line(msg), headers={"X-Request-ID": id_, "Connection": "close"})
        response = h11.Response(status_code=answer.status_code, headers=answer.raw_headers)
        for event in (response, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


async def serve(settings: Settings, database: Database, writing: Database) -> None:
    """Answer calls until SIGTERM or Ctrl-C; `writing` is the same database for those who write.

    Raises DeviceopsError if the address cannot be listened on.
    """
    host = settings.http_host
    if not settings.api_tokens:
        if not is_loopback(host):
            _log.warning("no tokens: listening on loopback only, whatever DEVICEOPS_HTTP_HOST says", host=host)
            host = LOOPBACK
        else:
            _log.warning("no tokens: anybody on this machine may call, and nobody else")
    changes = Changes(database)
    registry = registry_of_process({"reading": database, "writing": writing})
    count_followers(registry, changes)
    context = Context(database, writing, settings.trust, changes)
    app = create_app(context, settings.api_tokens or None, Requests(registry))
    config = uvicorn.Config(
        Forwarded(app, settings.http_proxies),  # type: ignore[arg-type]
        http=_Protocol,
        h11_max_incomplete_event_size=MAX_HEADERS,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # of which there are more
        timeout_graceful_shutdown=PATIENCE,
    )
    stopping = asyncio.Event()
    with listen(host, settings.http_port) as listener:
        url = url_of(listener)
        _log.info("listening", url=url, docs=f"{url}/docs")
        server = Server(config)

        def stop() -> None:
            server.force_exit = server.should_exit  # told twice, it waits for nobody
            server.should_exit = True
            stopping.set()
            changes.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        async with answering(settings.api_probes, Health((), stopping), registry):
            await server.serve(sockets=[listener])
    _log.info("stopped")
