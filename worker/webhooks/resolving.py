"""Looks names up in threads that nothing waits for at the end, and that nobody else needs.

The event loop's own threads are few, and connections to the broker and the database wait for them too: a name
server that does not answer must not slow those.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Any

Found = list[tuple[Any, Any, int, str, tuple[Any, ...]]]


async def resolve(host: str, port: int, family: int) -> Found:
    """The addresses of a host, as `socket.getaddrinfo` has them. Raises OSError."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Found] = loop.create_future()

    def settle(found: Found | None, failure: OSError) -> None:
        if future.done():  # whoever waited for it does no longer
            return
        if found is None:
            future.set_exception(failure)
        else:
            future.set_result(found)

    def look_up() -> None:
        found, failure = None, OSError()
        try:
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        except OSError as error:
            failure = error
        except UnicodeError:
            failure = OSError("not a name")
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, found, failure)

    threading.Thread(target=look_up, name="webhook-names", daemon=True).start()
    return await future
