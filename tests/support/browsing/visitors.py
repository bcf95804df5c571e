"""Open pages without a browser: each holds the stream over which the server sends the parts of its page."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

TIMEOUT = 60
"""Seconds in which a stream begins, and in which all streams end with their block."""


class Visitors:
    """How many pages have received their part, and how many parts were received in all."""

    def __init__(self, stream: str, cookies: dict[str, str], number: int) -> None:
        self.open = 0
        self.received = 0
        self._stream = stream
        self._cookies = cookies
        self._number = number
        self._ended = threading.Event()

    def end(self) -> None:
        """Have all of them leave."""
        self._ended.set()

    async def run(self) -> None:
        """Have them open until `end`. Raises what one of them failed with."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with (
            httpx.AsyncClient(cookies=self._cookies, limits=limits, timeout=TIMEOUT, trust_env=False) as client,
            asyncio.TaskGroup() as tasks,
        ):
            following = [tasks.create_task(self._follow(client)) for _ in range(self._number)]
            await asyncio.to_thread(self._ended.wait)
            for each in following:
                each.cancel()

    async def _follow(self, client: httpx.AsyncClient) -> None:
        is_new = True
        async with client.stream("GET", self._stream) as stream:
            stream.raise_for_status()
            async for line in stream.aiter_lines():
                if line.startswith("event: part-"):
                    self.received += 1
                    self.open += is_new
                    is_new = False


@contextmanager
def visiting(stream: str, cookies: dict[str, str], number: int) -> Iterator[Visitors]:
    """So many pages that hold a stream until the end of the block. Fails if one of them failed."""
    visitors, failures = Visitors(stream, cookies, number), list[Exception]()

    def run() -> None:
        try:
            asyncio.run(visitors.run())
        except Exception as error:  # raised in the thread of the test  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield visitors
    finally:
        visitors.end()
        thread.join(TIMEOUT)
    if failures:
        raise failures[0]
