"""A way to a server that can be cut, slow, or a black hole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass


@dataclass(eq=False)
class _Link:
    """One client's connection, carried to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    left: int | None = None
    """Bytes that still reach the client before the link breaks; None for any number."""
    is_lost: bool = False
    """Whether anything that was sent vanished: no stream survives that, so all that follows vanishes too."""

    def abort(self) -> None:
        for end in (self.client, self.server):
            end.transport.abort()


class Proxy:
    """Carries bytes both ways between clients and one server, as badly as it is told to."""

    def __init__(self, host: str, port: int) -> None:
        self.leads_to = host, port
        """Where new connections are carried."""
        self._links: set[_Link] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._fatal: tuple[bytes, asyncio.Event] | None = None
        self.port = 0
        self.swallow = False
        """Whether all that is sent vanishes, also that an end was closed; connections are accepted all the same.

        A connection on which anything vanished stays lost when this is over, as where a firewall forgot it.
        """
        self.delay = 0.0
        """Seconds that each chunk of bytes takes."""

    def lead_to(self, host: str, port: int) -> None:
        """Carry new connections to another server; those that are open stay with the one that they have."""
        self.leads_to = host, port

    def lose_the_answer_to(self, words: bytes) -> asyncio.Event:
        """Carry the next bytes of a client's that have these words, and nothing more on that connection.

        The event is set once they are on their way.
        """
        self._fatal = words, asyncio.Event()
        return self._fatal[1]

    def cut(self) -> None:
        """Break every connection that is open; new ones are carried."""
        for link in self._links:
            link.abort()

    def cut_after(self, number: int) -> None:
        """Break each connection that is open after so many more bytes to the client: one at least."""
        for link in self._links:
            link.left = number

    def forget(self) -> None:
        """Leave every connection that is open half-open: what is sent there vanishes; new ones are carried."""
        for link in self._links:
            link.is_lost = True

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one client's connection from now on."""
        carrying = asyncio.create_task(self._carry(reader, writer))
        self._carrying.add(carrying)
        carrying.add_done_callback(self._carrying.discard)

    async def end(self) -> None:
        """Break every connection, also one that is being made."""
        self.cut()
        for carrying in self._carrying:
            carrying.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, until both sides have ended it; refused if the server does not answer."""
        try:
            there_reader, there_writer = await asyncio.open_connection(*self.leads_to)
        except OSError:
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        link = _Link(writer, there_writer)
        self._links.add(link)
        writer.transport.set_write_buffer_limits(0)  # so that what drain() let go is on its way
        try:
            await asyncio.gather(self._pump(link, reader, there_writer), self._pump(link, there_reader, writer))
        finally:
            self._links.discard(link)
            for end in (writer, there_writer):
                end.close()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await asyncio.sleep(self.delay)
                if self._is_lost(link):
                    continue
                if writer is link.client and link.left is not None:
                    data = data[: link.left]
                    link.left -= len(data)
                fatal = self._fatal
                if fatal is not None and writer is link.server and fatal[0] in data:
                    link.is_lost, self._fatal = True, None
                    fatal[1].set()
                writer.write(data)
                await writer.drain()
                if link.left == 0:
                    link.abort()
        if not self._is_lost(link):
            writer.close()

    def _is_lost(self, link: _Link) -> bool:
        link.is_lost = link.is_lost or self.swallow
        return link.is_lost


@asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy on a free port of this machine."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
        await server.wait_closed()
