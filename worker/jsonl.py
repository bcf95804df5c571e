"""JSON lines: a report's body in each, or an envelope.

An envelope is an object that has `body`, and no other keys but `type`, `message_id` and `headers`.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic_core import from_json, to_json

from worker.errors import DeviceopsError
from worker.files import File
from worker.model.encodings import BOM, SEEN, foreign
from worker.model.identity import identity
from worker.model.messages import MAX_BODY, Message, Origin
from worker.model.surrogates import whole
from worker.model.text import clean

CHUNK = 1 << 20
"""Bytes read at once, at most. A pipe gives what it has, so a slow one is processed as it comes."""
MAX_LINE = MAX_BODY + 1
"""Bytes of a line that are kept; what is cut there is too large to be read anyway."""


class _Envelope(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    body: JsonValue
    type: str | None = None
    message_id: str | None = None
    headers: dict[str, JsonValue] | None = None


async def chunks(stream: File, longest: int = MAX_LINE) -> AsyncIterator[list[bytes]]:
    """The stream's lines, as many at a time as are there to be read; of one beyond `longest` bytes, the first.

    Raises DeviceopsError if the stream is no UTF-8, before it gives any.
    """
    rest = bytearray()
    data = text_of(await _beginning(stream), stream.label)
    while data:
        first, *others = data.split(b"\n")
        rest += first[: longest - len(rest)]
        if others:
            yield [bytes(rest), *others[:-1]]
            rest = bytearray(others[-1])
        data = await _some(stream)
    if rest:
        yield [bytes(rest)]


def text_of(data: bytes, label: str) -> bytes:
    """A text without the mark that some editors begin it with. Raises DeviceopsError if it is no UTF-8 text."""
    if (found := foreign(data)) is not None:
        raise DeviceopsError(f"{label}: is {found}, expected plain text in UTF-8")
    return data.removeprefix(BOM)


async def _beginning(stream: File) -> bytes:
    """Enough of a stream to know it by; a pipe may give it byte by byte."""
    data = await _some(stream)
    while 0 < len(data) < SEEN and (more := await _some(stream)):
        data += more
    return data


async def _some(stream: File) -> bytes:
    await _until_readable(stream)
    return stream.read(CHUNK)


async def _until_readable(stream: File) -> None:
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
    """The message of one line: an envelope's, or what is no envelope as it stands."""
    now = datetime.now(UTC)
    line = line.removeprefix(BOM)  # of the first line of each of several files
    envelope = _envelope(line) if b'"body"' in line else None  # few lines: most need not be read twice
    if envelope is None:
        return Message(line.removesuffix(b"\r"), now)
    body, headers = envelope.body, envelope.headers or {}
    return Message(
        # As it stood: the reader of messages says what is wrong with a NaN, which no JSON has.
        content=body.encode() if isinstance(body, str) else to_json(body, inf_nan_mode="constants"),
        received_at=now,
        message_id=identity(envelope.message_id),
        type=clean(envelope.type) if envelope.type else None,
        origin=lambda: Origin(headers=headers),
    )


def _envelope(line: bytes) -> _Envelope | None:
    try:
        return _Envelope.model_validate(from_json(whole(line)))
    except ValueError:  # also of what has other keys, or a value of the wrong kind
        return None
