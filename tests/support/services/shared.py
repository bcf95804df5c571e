"""Services that all processes of a test run share: each begins when a process first asks for it."""

import threading
from contextlib import ExitStack, suppress
from multiprocessing.connection import Client, Listener
from typing import Self

from tests.support.services.server import PrivateServer, ServiceError


class Services:
    """Starts services, once each, and stops them at the end."""

    def __init__(self, kinds: dict[str, type[PrivateServer]]) -> None:
        self._kinds = kinds
        self._urls: dict[str, str] = {}
        self._stack = ExitStack()
        self._lock = threading.Lock()

    def url(self, name: str) -> str:
        """The URL of a service. Raises ServiceError if it cannot be had."""
        with self._lock:
            if name not in self._urls:
                self._urls[name] = self._stack.enter_context(self._kinds[name].service())
            return self._urls[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stack.close()

    def lend(self, address: str) -> None:
        """Have other processes ask for services too, by borrowed(), at a path."""
        listener = self._stack.enter_context(Listener(address))
        threading.Thread(target=self._answer, args=(listener,), daemon=True).start()

    def _answer(self, listener: Listener) -> None:
        while True:
            try:
                asking = listener.accept()
            except OSError:  # it is closed
                return
            with suppress(OSError, EOFError), asking:
                try:
                    asking.send(self.url(asking.recv()))
                except ServiceError as error:
                    asking.send(error)


def borrowed(address: str, name: str) -> str:
    """The URL of a service that another process keeps. Raises ServiceError if it cannot be had."""
    with Client(address) as asking:
        asking.send(name)
        found: str | ServiceError = asking.recv()
    if isinstance(found, ServiceError):
        raise found
    return found
