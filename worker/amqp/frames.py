"""The fast path: deliveries are read from a connection's bytes as they arrive; the client gets all other frames.

In the client each frame takes up to three turns of the event loop, and a delivery is three frames and a task: half
of a worker's time.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, SupportsIndex

from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from pamqp import commands, constants
from pamqp.heartbeat import Heartbeat
from yarl import URL

from worker.amqp.delivery import Delivery

_FRAME = Struct(
    ">BHI"
)  # its type, channel and size (AMQP 0-9-1, section 4.2.3); then come the payload and one octet
_END = constants.FRAME_END
_TYPES = {constants.FRAME_METHOD, constants.FRAME_HEADER, constants.FRAME_BODY, constants.FRAME_HEARTBEAT}
_DELIVER = Struct(">I").pack(commands.Basic.Deliver.index)
_BODY_SIZE = slice(4, 12)  # in the payload of a content header (section 4.2.6.1)
_HEARTBEAT = Heartbeat.marshal()
_HEARTBEAT_AFTER = 1
"""Seconds with nothing but deliveries after which the client gets a heartbeat frame."""


Sink = Callable[[Delivery], None]
"""Receives a delivery; must return at once."""


@dataclass(slots=True)
class _Arriving:
    """A delivery with missing frames."""

    method: bytes
    header: bytes = b""
    parts: list[bytes] = field(default_factory=list)
    missing: int = 0


class FrameTransport(TransportFactory):
    """Opens the network connection, and keeps its reader and writer."""

    def __init__(self) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self._reader: _Reader | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, as `asyncio.open_connection` does. Raises AMQPConnectionError."""
        loop = asyncio.get_running_loop()
        tls = options.pop("ssl_context_provider", None)
        ssl = await tls.get_context() if url.scheme == "amqps" else None
        host, port = url.host or "", url.port or 0  # the client has filled in the default ones
        self._reader = _Reader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        try:
            self.transport, _ = await loop.create_connection(lambda: protocol, host, port, ssl=ssl, **options)
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return self._reader, asyncio.StreamWriter(self.transport, protocol, self._reader, loop)

    def route_deliveries(self, channel: int, sink: Sink) -> None:
        """Pass the deliveries of a channel to a sink from now on."""
        assert self._reader is not None
        self._reader.sinks[channel] = sink


class _Reader(asyncio.StreamReader):
    """The client's input: whole frames, without those of deliveries that go to a sink."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.sinks: dict[int, Sink] = {}
        self._loop_time = loop.time
        self._begun = b""
        self._arriving: dict[int, _Arriving] = {}
        self._is_readable = True
        self._fed_at = 0.0

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Add bytes from the socket."""
        data = self._begun + bytes(data)
        at, size = 0, len(data)
        others: list[bytes] = []
        while self._is_readable and size - at >= _FRAME.size:
            type_, channel, length = _FRAME.unpack_from(data, at)
            end = at + _FRAME.size + length
            self._is_readable = type_ in _TYPES and (end >= size or data[end] == _END)
            if end >= size or not self._is_readable:
                break
            sink = self.sinks.get(channel)
            if sink is None or not self._take(type_, channel, data[at + _FRAME.size : end], sink):
                others.append(data[at : end + 1])
            at = end + 1
        self._begun = data[at:]
        if not self._is_readable:  # not an AMQP frame: the client reports it
            others.append(self._begun)
            self._begun = b""
        self._feed(others)

    def feed_eof(self) -> None:
        """Note the end of the stream."""
        begun, self._begun = self._begun, b""
        if begun:  # asyncio calls this twice, and after the first time nothing may be fed
            self._feed([begun])
        super().feed_eof()

    def _feed(self, frames: list[bytes]) -> None:
        now = self._loop_time()
        if not frames and now - self._fed_at > _HEARTBEAT_AFTER:
            frames = [_HEARTBEAT]  # the client expects traffic; the broker sends heartbeats only when idle
        if frames:
            self._fed_at = now
            super().feed_data(b"".join(frames))

    def _take(self, type_: int, channel: int, payload: bytes, sink: Sink) -> bool:
        """Whether this is a frame of a delivery; the last one completes it."""
        if type_ == constants.FRAME_METHOD:
            if not payload.startswith(_DELIVER):
                return False
            self._arriving[channel] = _Arriving(payload)
            return True
        arriving = self._arriving.get(channel)
        if arriving is None:
            return False
        if type_ == constants.FRAME_HEADER:
            arriving.header = payload
            arriving.missing = int.from_bytes(payload[_BODY_SIZE])
        else:
            arriving.parts.append(payload)
            arriving.missing -= len(payload)
        if not arriving.missing:
            del self._arriving[channel]
            sink(Delivery(arriving.method, arriving.header, b"".join(arriving.parts)))
        return True
