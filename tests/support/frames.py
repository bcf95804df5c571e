"""AMQP properties and tables as bytes, also such as no client library writes."""

import struct

from pamqp import commands
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from tests.support.sending import NOW
from worker.amqp.delivery import Delivery
from worker.amqp.reading import as_message
from worker.model.messages import Message

NOT_UTF8 = b"\xff\xfe"


class RawProperties(commands.Basic.Properties):
    """Properties whose encoded form is given: flags, then values."""

    def __init__(self, flags: int, values: bytes) -> None:
        super().__init__()
        self._raw = struct.pack(">H", flags) + values

    def marshal(self) -> bytes:
        return self._raw


def short(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def table(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack(">I", len(body)) + body


def nested(depth: int) -> bytes:
    value = table()
    for _ in range(depth):
        value = table(short(b"k") + b"F" + value)
    return value


def entry(name: bytes, kind: bytes, value: bytes) -> bytes:
    return short(name) + kind + value


def sized(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def delivered(body: bytes, message_id: bytes, type_: str | None = None) -> Message:
    """A message as the broker delivers it, with an id of any bytes."""
    header = ContentHeader(body_size=len(body), properties=Basic.Properties(message_id="?", message_type=type_))
    marshalled = header.marshal()
    at = marshalled.index(b"\x01?")
    marshalled = marshalled[:at] + bytes([len(message_id)]) + message_id + marshalled[at + 2 :]
    method = b"\0\x3c\0\x3c" + Basic.Deliver("consumer", 1, False, "exchange", "key").marshal()
    return as_message(Delivery(method, marshalled, body), NOW)
