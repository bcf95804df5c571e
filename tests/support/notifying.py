"""What a service tells systemd, read at systemd's end."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def notify_socket(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """systemd's end of sd_notify(3): its name, and the messages that come."""
    messages: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(folder / "notify"))

        def receive() -> None:
            while message := end.recv(4096):
                messages.append(message.decode())

        receiving = threading.Thread(target=receive)
        receiving.start()
        try:
            yield str(folder / "notify"), messages
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                other.sendto(b"", str(folder / "notify"))
            receiving.join()
