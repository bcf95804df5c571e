"""No message may break the connection by what its sender wrote into the properties or headers.

pamqp raises on what it cannot decode (text that is not UTF-8, a time beyond the year 9999), which closes the
connection for every message in flight; the broker would deliver them all again, until it gives them all up.
Importing this module makes its decoding total: what cannot be decoded has a stand-in, and hides nothing beside it.
"""

from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pamqp import common, decode

MAX_DEPTH = 50
"""Levels of tables and arrays that are decoded field by field; deeper ones have a stand-in."""

_Decoder = Callable[[bytes], tuple[int, Any]]


def _or_else(decoder: _Decoder, fallback: _Decoder) -> _Decoder:
    def total(value: bytes) -> tuple[int, Any]:
        try:
            return decoder(value)
        except (ValueError, OverflowError, OSError, RecursionError):
            return fallback(value)

    return total


def text(value: bytes) -> tuple[int, str]:
    """A short string at the beginning of `value`, and how many bytes it takes."""
    length = value[0]
    return length + 1, value[1 : length + 1].decode(errors="replace")


def exact_text(value: bytes) -> tuple[int, str]:
    """The same with surrogates in the place of bytes that are not UTF-8: other bytes are other text."""
    length = value[0]
    return length + 1, value[1 : length + 1].decode(errors="surrogateescape")


def _no_time(_value: bytes) -> tuple[int, None]:
    return 8, None


def _sent_at(value: bytes) -> tuple[int, Any]:
    """A time, but for 0: no message was sent in 1970, some clients say so where nothing is set."""
    return decode.timestamp(value) if any(value[:8]) else _no_time(value)


def _number(value: bytes) -> tuple[int, int]:
    return 8, int.from_bytes(value[:8])


def _stand_in(value: bytes) -> dict[str, str]:
    return {"undecodable, base64": b64encode(value).decode()}


def _end(value: bytes) -> int:
    """Where a table or an array ends, which begins with its size."""
    size: int = common.Struct.integer.unpack(value[:4])[0]
    return min(4 + size, len(value))


def _fields(value: bytes, depth: int = 0) -> tuple[int, dict[str, Any]]:
    """A table, of which fields or their names may be undecodable."""
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
    """A value behind the octet that says what kind it is; if that is unknown, so is where the value ends."""
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
"""Of exactly the eight bytes of a time. It has seconds, so what is sent at about the same time has the same."""
