"""JSON lines: a report's body in each, or an envelope.

An envelope is an object with `body`, and no other keys than `type`, `message_id` and `headers`.
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
"""Maximum bytes per read. A pipe returns what it has, so a slow one is processed as it arrives."""
MAX_LINE = MAX_BODY + 1
"""Maximum bytes of a line that are kept: a longer one is too large for a message anyway."""


class _Envelope(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    body: JsonValue
    type: str | None = None
    message_id: str | None = None
    headers: dict[str, JsonValue] | None = None


async def chunks(stream: File, longest: int = MAX_LINE) -> AsyncIterator[list[bytes]]:
    """The stream's lines, in lists of what one read returns; lines longer than `longest` bytes are cut.

    Raises DeviceopsError before the first line if the stream is not UTF-8.
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
    """Text without a byte order mark. Raises DeviceopsError if it is not UTF-8."""
    if (found := foreign(data)) is not None:
        raise DeviceopsError(f"{label}: is {found}, expected plain text in UTF-8")
    return data.removeprefix(BOM)


async def _beginning(stream: File) -> bytes:
    """Enough bytes to detect the encoding; a pipe may return single bytes."""
    data = await _some(stream)
    while 0 < len(data) < SEEN and (more := await _some(stream)):
        data += more
    return data


async def _some(stream: File) -> bytes:
    await _until_readable(stream)
    return stream.read(CHUNK)


async def _until_readable(stream: File) -> None:
    """Wait for input from a pipe or terminal without blocking the loop, so that Ctrl-C works."""
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
        os.set_blocking(stream.fileno(), was_blocking)  # else the shell has it non-blocking too


def as_message(line: bytes) -> Message:
    """The message of one line: the envelope's, or the line as it is."""
    now = datetime.now(UTC)
    line = line.removeprefix(BOM)  # of each of several concatenated files
    envelope = _envelope(line) if b'"body"' in line else None  # most lines need not be parsed twice
    if envelope is None:
        return Message(line.removesuffix(b"\r"), now)
    body, headers = envelope.body, envelope.headers or {}
    return Message(
        # NaN is kept: the parser of messages rejects it with a reason.
        content=body.encode() if isinstance(body, str) else to_json(body, inf_nan_mode="constants"),
        received_at=now,
        message_id=identity(envelope.message_id),
        type=clean(envelope.type) if envelope.type else None,
        origin=lambda: Origin(headers=headers),
    )


def _envelope(line: bytes) -> _Envelope | None:
    try:
        return _Envelope.model_validate(from_json(whole(line)))
    except ValueError:  # also for other keys or values of the wrong type
        return None
