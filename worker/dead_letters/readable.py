"""Bodies of dead letters as people read them."""

import pydantic_core

from worker.model.messages import Message, Origin
from worker.model.unwrapping import as_far_as_readable
from worker.store import documents

LARGEST = 20_000_000
"""Bytes that a body may come to by being indented: each element of a nested list takes a line of its own."""
_DEEPEST = 200
"""Levels of nesting that are read."""


def unpacked(letter: documents.DeadLetterDetails) -> bytes:
    """The body, decompressed and taken out of its CloudEvent as far as that is possible."""
    origin = Origin(letter.exchange, letter.routing_key, letter.properties, letter.headers)
    return as_far_as_readable(Message(letter.body, letter.received_at, origin=lambda: origin)).body


def indented(body: bytes) -> bytes:
    """A body for display: JSON is indented, unless it might become larger than `LARGEST`."""
    opened = body.count(b"[") + body.count(b"{")
    lines = body.count(b",") + 2 * opened
    if len(body) + 2 * min(opened, _DEEPEST) * lines > LARGEST:
        return body
    try:
        document = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError:
        return body
    return pydantic_core.to_json(document, indent=2) + b"\n"
