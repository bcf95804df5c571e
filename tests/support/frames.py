"""AMQP properties and tables as bytes, also such as no client library writes."""

import struct

from pamqp import commands

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
