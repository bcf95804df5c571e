"""Decompression of bodies, with a size limit."""

import re
import zlib

from worker.model.encodings import BOM
from worker.model.text import shown

_AS_THEY_ARE = {"", "identity", "none", "utf-8", "utf8", "us-ascii", "ascii", "binary", "8bit", "7bit"}
"""Values of content_encoding without compression; kombu and others put the charset there."""
_OF_KOMBU = {"application/x-gzip", "application/gzip", "application/zlib", "gzip", "zlib"}
"""Codecs in kombu's header `compression` that are a gzip or a zlib stream."""
_GZIP_OR_ZLIB, _RAW = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS
_MOST_CODINGS = 4
_MOST_STREAMS = 10_000
_AT_ONCE = 1 << 16
"""Bytes that are fed to a stream at a time: those behind its end are copied."""
_NULS = re.compile(rb"\0*")


class Unreadable(ValueError):
    """A body that cannot be decoded; the message is the same for all bodies of one kind."""


def unpacked(body: bytes, limit: int, content_encoding: object = None, compression: object = None) -> bytes:
    """The decompressed body, of at most `limit` bytes. Raises Unreadable.

    `content_encoding` is the property, or HTTP's header, and `compression` the header that kombu sets.
    """
    if isinstance(compression, str) and (codec := compression.strip().lower()) not in _AS_THEY_ARE:
        if codec not in _OF_KOMBU:
            raise Unreadable(f"compression: {shown(codec)} is not read; gzip and zlib are")
        body = _inflated(body, limit, f"compression {codec}")
    codings = str(content_encoding or "").lower().split(",")
    if len(codings) > _MOST_CODINGS:
        raise Unreadable(f"content_encoding: names more than {_MOST_CODINGS} codings")
    for coding in map(str.strip, reversed(codings)):
        if coding in ("gzip", "x-gzip", "deflate"):
            body = _inflated(body, limit, f"content_encoding {coding}")
        elif coding not in _AS_THEY_ARE:
            raise Unreadable(f"content_encoding: {shown(coding)} is not read; gzip and deflate are")
    return body


def _inflated(body: bytes, limit: int, name: str) -> bytes:
    for window in (_GZIP_OR_ZLIB, _RAW):
        try:
            return _streams(body, window, limit, name)
        except zlib.error:
            continue
    if body.removeprefix(BOM).lstrip()[:1] == b"{":
        return body  # named so, and not compressed after all
    raise Unreadable(f"{name}: the body is no such stream")


def _streams(body: bytes, window: int, limit: int, name: str) -> bytes:
    parts: list[bytes] = []
    size = at = 0
    for _ in range(_MOST_STREAMS):  # gzip's may be several, one after another
        stream = zlib.decompressobj(window)
        while not stream.eof:
            if at == len(body):
                raise Unreadable(f"{name}: the stream ends early")
            given = body[at : at + _AT_ONCE]
            parts.append(stream.decompress(given, limit + 1 - size))
            size += len(parts[-1])
            if size > limit:
                raise Unreadable(f"{name}: the body grows beyond {limit:,} bytes")
            at += len(given) - len(stream.unused_data)
        padding = _NULS.match(body, at)
        assert padding is not None
        at = padding.end()
        if at == len(body):
            return b"".join(parts)
    raise Unreadable(f"{name}: the body is more than {_MOST_STREAMS:,} streams")
