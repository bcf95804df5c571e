"""A listening socket, and uvicorn as one task of a process."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from worker.errors import DeviceopsError


class HttpServer(uvicorn.Server):
    """uvicorn without signal handling: it would raise a signal again at its end, which looks like a crash."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free port. Raises DeviceopsError if it cannot listen."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise DeviceopsError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None


def url_of(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
