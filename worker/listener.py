"""A socket to listen on, and uvicorn on it as a part of a process that has other things to do."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from worker.errors import DeviceopsError


class Server(uvicorn.Server):
    """uvicorn that leaves signals to whoever runs it: raised again at the end, a stop would look like a crash."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any that is free. Raises DeviceopsError if it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise DeviceopsError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None


def url_of(listener: socket.socket) -> str:
    """The address of what listens there, for people."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
