"""JSON lines: a report's body in each, or an envelope `{"type", "message_id", "headers", "body"}`."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import FileIO

import pydantic_core
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from worker.contract import clean
from worker.errors import DeviceopsError
from worker.messages import MAX_BODY, Message, Origin

CHUNK = 1 << 20
"""Bytes read at once, at most. A pipe gives what it has, so a slow one is processed as it comes."""
MAX_LINE = MAX_BODY + 1
"""Bytes of a line that are kept; what is cut there is too large to be read anyway."""


class _Envelope(BaseModel):
    model_config = ConfigDict(strict=True)

    body: JsonValue
    type: str | None = None
    message_id: str | None = None
    headers: dict[str, JsonValue] = {}


@contextmanager
def opened(source: str) -> Iterator[FileIO]:
    """The file, or standard input for `-`, unbuffered. Raises DeviceopsError if it cannot be read."""
    if source == "-" and sys.stdin is None:
        raise DeviceopsError("standard input is closed")
    try:
        stream = FileIO(sys.stdin.fileno(), closefd=False) if source == "-" else FileIO(source)
    except OSError as error:
        raise DeviceopsError(f"{source}: {error.strerror}") from error
    with stream:
        yield stream


async def chunks(stream: FileIO, longest: int = MAX_LINE) -> AsyncIterator[list[bytes]]:
    """The stream's lines, as many at a time as are there to be read; of one beyond `longest` bytes, the first."""
    rest = bytearray()
    while True:
        await _until_readable(stream)
        data = stream.read(CHUNK)
        if not data:
            break
        first, *others = data.split(b"\n")
        rest += first[: longest - len(rest)]
        if others:
            yield [bytes(rest), *others[:-1]]
            rest = bytearray(others[-1])
    if rest:
        yield [bytes(rest)]


async def _until_readable(stream: FileIO) -> None:
    """Wait for a pipe or a terminal to have something, without blocking the loop, so that Ctrl-C works."""
    mode = os.fstat(stream.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stream.isatty()):
        return
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    was_blocking = os.get_blocking(stream.fileno())
    loop.add_reader(stream.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(stream.fileno())
        os.set_blocking(stream.fileno(), was_blocking)  # the loop changes it, also for the shell behind it


def as_message(line: bytes) -> Message:
    """The message of one line. What cannot be read as an envelope is a body as it stands."""
    now = datetime.now(UTC)
    if b'"body"' not in line:  # most lines: no need to parse them twice
        return Message(line.rstrip(b"\r"), now)
    try:
        document = pydantic_core.from_json(line)
        envelope = _Envelope.model_validate(document) if "body" in document else None
    except (ValueError, TypeError, ValidationError):
        envelope = None
    if envelope is None:
        return Message(line.rstrip(b"\r"), now)
    text = isinstance(envelope.body, str)
    return Message(
        content=str(envelope.body).encode() if text else pydantic_core.to_json(envelope.body),
        received_at=now,
        message_id=clean(envelope.message_id) if envelope.message_id else None,
        type=clean(envelope.type) if envelope.type else None,
        origin=lambda: Origin(headers=envelope.headers),
    )
