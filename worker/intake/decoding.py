"""No message may break the connection by what its sender wrote into the properties or headers.

pamqp raises on what it cannot decode (text that is not UTF-8, a time beyond the year 9999), which closes the
connection for every message in flight; the broker would deliver them all again, until it gives them all up.
Importing this module makes its decoding total.
"""

from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pamqp import common, decode

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


def _no_time(_value: bytes) -> tuple[int, None]:
    return 8, None


def _undecoded(value: bytes) -> tuple[int, dict[str, str]]:
    length: int = common.Struct.integer.unpack(value[:4])[0]
    return length + 4, {"undecodable, base64": b64encode(value[4 : length + 4]).decode()}


decode.METHODS["shortstr"] = text
decode.METHODS["timestamp"] = _or_else(decode.timestamp, _no_time)
decode.METHODS["table"] = _or_else(decode.field_table, _undecoded)

table = decode.METHODS["table"]
timestamp = lru_cache(decode.METHODS["timestamp"])
"""Of exactly the eight bytes of a time. It has seconds, so what is sent at about the same time has the same."""
