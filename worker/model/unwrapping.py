"""Message bodies as plain JSON text: decompressed, taken out of CloudEvents, without a byte order mark."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from worker.model.cloudevents import read_event
from worker.model.compression import Unreadable, unpacked
from worker.model.encodings import BOM
from worker.model.identity import identity
from worker.model.messages import MAX_BODY, Message, Origin
from worker.model.surrogates import whole


def read(message: Message) -> Message:
    """The message as plain JSON: decompressed, taken out of its CloudEvent, without a byte order mark.

    Raises Unreadable.
    """
    is_plain = message.is_plain
    if is_plain is None:
        is_plain = message.origin is Origin or not message.origin().is_wrapped
    if not is_plain:
        message = _unwrapped(message)
    body = message.body
    text = text_of(body)
    return message if text is body else replace(message, content=text, is_plain=True)


def as_far_as_readable(message: Message) -> Message:
    """The message as `read` returns it, or unchanged if it is unreadable."""
    try:
        return read(message)
    except Unreadable:
        return message


def text_of(body: bytes) -> bytes:
    """A body without a byte order mark, and without lone surrogates."""
    return whole(body.removeprefix(BOM) if body.startswith(BOM) else body)


def _unwrapped(message: Message) -> Message:
    origin = message.origin()
    encoding, compression = origin.properties.get("content_encoding"), origin.headers.get("compression")
    body = text_of(unpacked(message.body, MAX_BODY, encoding, compression))
    event = read_event(body, origin.properties.get("content_type"), origin.headers)
    plain = replace(message, content=body, origin=partial(_plain, message.origin), is_plain=True)
    if event is None:
        return plain
    sent_at = event.time or message.sent_at
    return replace(plain, content=event.body, type=event.type, message_id=identity(event.id), sent_at=sent_at)


def _plain(origin: Callable[[], Origin]) -> Origin:
    return origin().plain()
