"""Decoding of properties and headers that never fails, whatever the sender wrote.

pamqp raises on what it cannot decode (text that is not UTF-8, a time beyond the year 9999), which closes the
connection for every message in flight; the broker would redeliver them all until it abandons them. Importing this
module makes the decoding total: a placeholder replaces what cannot be decoded, and nothing else is affected.
"""

from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pamqp import common, decode

MAX_DEPTH = 50
"""Maximum depth of tables and arrays; deeper ones become placeholders."""

_Decoder = Callable[[bytes], tuple[int, Any]]


def _or_else(decoder: _Decoder, fallback: _Decoder) -> _Decoder:
    def total(value: bytes) -> tuple[int, Any]:
        try:
            return decoder(value)
        except (ValueError, OverflowError, OSError, RecursionError):
            return fallback(value)

    return total


def text(value: bytes) -> tuple[int, str]:
    """A short string at the beginning of `value`: its length in bytes, and its text."""
    length = value[0]
    return length + 1, value[1 : length + 1].decode(errors="replace")


def exact_text(value: bytes) -> tuple[int, str]:
    """The same with surrogate escapes for bytes that are not UTF-8, so that different bytes are different text."""
    length = value[0]
    return length + 1, value[1 : length + 1].decode(errors="surrogateescape")


def _no_time(_value: bytes) -> tuple[int, None]:
    return 8, None


def _sent_at(value: bytes) -> tuple[int, Any]:
    """A time, None for 0, which some clients send where none is set."""
    return decode.timestamp(value) if any(value[:8]) else _no_time(value)


def _number(value: bytes) -> tuple[int, int]:
    return 8, int.from_bytes(value[:8])


def _stand_in(value: bytes) -> dict[str, str]:
    return {"undecodable, base64": b64encode(value).decode()}


def _end(value: bytes) -> int:
    """The end of a table or an array, which begins with its size."""
    size: int = common.Struct.integer.unpack(value[:4])[0]
    return min(4 + size, len(value))


def _fields(value: bytes, depth: int = 0) -> tuple[int, dict[str, Any]]:
    """A table whose fields or names may be undecodable."""
    found: dict[str, Any] = {}
    at, end = 4, _end(value)
    while at < end:
        name_end = at + 1 + value[at]
        name = value[at + 1 : name_end].decode(errors="backslashreplace")
        size, field = _field(value[name_end:end], depth)
        found.setdefault(name, field)
        at = name_end + size
    return end, found


def _items(value: bytes, depth: int) -> tuple[int, list[Any]]:
    found: list[Any] = []
    at, end = 4, _end(value)
    while at < end:
        size, item = _field(value[at:end], depth)
        found.append(item)
        at += size
    return end, found


_CONTAINERS: dict[bytes, Callable[[bytes, int], tuple[int, Any]]] = {b"F": _fields, b"A": _items}


def _field(value: bytes, depth: int) -> tuple[int, Any]:
    """A value after its type octet; of an unknown type, the end is unknown as well."""
    kind, data = value[:1], value[1:]
    field: Any
    try:
        if kind not in _CONTAINERS:
            size, field = decode.TABLE_MAPPING[kind](data)
        elif depth < MAX_DEPTH:
            size, field = _CONTAINERS[kind](data, depth + 1)
        else:
            size, field = _end(data), _stand_in(data[4 : _end(data)])
    except (KeyError, ValueError):
        return len(value), _stand_in(value)
    return 1 + size, field


table: Callable[[bytes], tuple[int, dict[str, Any]]] = _or_else(decode.field_table, _fields)

decode.METHODS["shortstr"] = text
decode.METHODS["timestamp"] = _or_else(_sent_at, _no_time)
decode.METHODS["table"] = table
decode.TABLE_MAPPING[b"T"] = _or_else(decode.timestamp, _number)

timestamp = lru_cache(decode.METHODS["timestamp"])
"""Placeholder for a timestamp of exactly eight bytes."""
