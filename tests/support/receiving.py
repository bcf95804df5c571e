"""A receiver of webhooks on this machine, which verifies each message with the package that receivers use."""

import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import standardwebhooks

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgbG9uZyE="
"""Of every webhook of the tests."""


@dataclass(frozen=True)
class Received:
    """A message as it has come."""

    path: str
    id: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    at: float

    @property
    def type(self) -> str:
        """The type of the change."""
        return str(self.body["type"])


Behaviour = Callable[["Handler"], None]
"""Answers a request."""


@dataclass
class Receiver:
    """What has come to it, and how it behaves by the path of a request."""

    port: int = 0
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str = "/") -> str:
        """The address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def setting(self, *paths: str, **more: Any) -> str:
        """The value of DEVICEOPS_WEBHOOKS with a webhook for each path, which has its name."""
        made = {
            path.strip("/"): {"url": self.url(path), "secret": SECRET, "allow_private": True, **more}
            for path in paths
        }
        return json.dumps(made)

    def at(self, path: str) -> list[Received]:
        """What has come to a path."""
        with self.lock:
            return [each for each in self.received if each.path == path]

    def ids(self, path: str) -> Counter[str]:
        """How often each message has come to a path."""
        return Counter(each.id for each in self.at(path))


class Handler(BaseHTTPRequestHandler):
    """Verifies a request, keeps it and answers as its path says."""

    receiver: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take a message."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = dict(self.headers.items())
        document = standardwebhooks.Webhook(SECRET).verify(body, headers)
        receiver = self.receiver
        with receiver.lock:
            receiver.received.append(
                Received(self.path, self.headers["webhook-id"], document, headers, time.monotonic())
            )
            receiver.at_once += 1
            receiver.most_at_once = max(receiver.at_once, receiver.most_at_once)
        try:
            with suppress(OSError):
                receiver.behaviours.get(self.path.partition("?")[0], answering(204))(self)
        finally:
            with receiver.lock:
                receiver.at_once -= 1

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Log nothing."""


def answering(status: int, **headers: str) -> Behaviour:
    """Answers with a status."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


def hanging(seconds: float = 60) -> Behaviour:
    """Does not answer."""
    return lambda _: time.sleep(seconds)


def slow(seconds: float, status: int) -> Behaviour:
    """Answers with a status after a while."""

    def answer(handler: Handler) -> None:
        time.sleep(seconds)
        answering(status)(handler)

    return answer


def dripping(handler: Handler) -> None:
    """Sends an answer that never ends, a byte at a time; a header, so that its status does not help."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.2)


def raw(data: bytes) -> Behaviour:
    """Answers with bytes as they stand, and closes the connection."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


def huge(handler: Handler) -> None:
    """Answers with a gigabyte."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**9))
    handler.end_headers()
    for _ in range(10**4):
        handler.wfile.write(b"x" * 10**5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing."""


@contextmanager
def receiving(tls: ssl.SSLContext | None = None, /, **behaviours: Behaviour) -> Iterator[Receiver]:
    """A receiver for a block; behaviours by path without its slash."""
    receiver = Receiver(behaviours={f"/{name}": behaviour for name, behaviour in behaviours.items()})
    handler = type("Handler", (Handler,), {"receiver": receiver})
    with _Server(("127.0.0.1", 0), handler) as server:
        receiver.port = server.server_address[1]
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
