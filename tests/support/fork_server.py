"""Runs commands from a process that has loaded the libraries already: four fifths of a short command are imports.

A command is a process of its own all the same, with its own arguments, environment, folder and streams. Run as a
module, this is the server.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOADED = (
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "worker.amqp.consumer",
    "worker.config.settings",
    "worker.dead_letters.replay",
    "worker.store.documents",
    "worker.store.queries",
    "rich.live",
    "rich.progress",
    "rich.table",
    "typer.rich_utils",
)
"""What most commands import, and what these import; none of it looks at the environment when it is loaded."""
_SIZE = struct.Struct("!I")


class ForkServer:
    """The server, which ends with the process that started it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", __name__]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=theirs.fileno(), start_new_session=True)
        atexit.register(self.stop)

    def start(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], streams: Sequence[int]
    ) -> socket.socket:
        """Start a command with descriptors of its three streams; gives the line for `exit_code`."""
        ours, theirs = socket.socketpair()
        request = json.dumps([arguments, str(folder), dict(environment)]).encode()
        with theirs:
            socket.send_fds(self._socket, [b"."], [*streams, theirs.fileno()])
        ours.sendall(_SIZE.pack(len(request)) + request)
        return ours

    def stop(self) -> None:
        """End it."""
        self._socket.close()
        self._process.wait()


@cache
def server() -> ForkServer:
    """The one server of this process."""
    return ForkServer()


def exit_code(line: socket.socket, timeout: float) -> int:
    """Wait until a command has ended; gives its exit code, negative for a signal.

    Kills one that takes longer than `timeout`, in seconds, and raises TimeoutError.
    """
    with line:
        line.settimeout(timeout)
        return int(line.recv(16))


def _serve(requests: socket.socket) -> Sequence[str]:
    """Answer requests until the tests end; returns, with the arguments, in the process of each command."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(-1, os.WNOHANG)
    requests.close()
    *streams, number = descriptors
    line = socket.socket(fileno=number)
    size = _SIZE.unpack(_received(line, _SIZE.size))[0]
    arguments, folder, environment = json.loads(_received(line, size))
    if command := os.fork():
        for stream in streams:
            os.close(stream)
        if line.fileno() in select.select([line.fileno(), os.pidfd_open(command)], [], [])[0]:  # nobody waits
            os.kill(command, signal.SIGKILL)
        _, status = os.waitpid(command, 0)
        with suppress(BrokenPipeError):
            line.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    line.close()
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    return list(arguments)


def _received(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += line.recv(size - len(data))
    return data


if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    sys.argv[1:] = _serve(socket.socket(fileno=os.dup(0)))
    runpy.run_module("worker", run_name="__main__", alter_sys=True)
