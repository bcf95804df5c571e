"""Detection of other encodings and formats where UTF-8 text is expected, by the first bytes."""

from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE

BOM = BOM_UTF8
"""The byte order mark with which some editors begin UTF-8 files."""

_BEGINNINGS = {
    BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it begins with
    BOM_UTF32_BE: "UTF-32",
    BOM_UTF16_LE: "UTF-16",
    BOM_UTF16_BE: "UTF-16",
    b"\x1f\x8b": "compressed (gzip)",
    b"BZh": "compressed (bzip2)",
    b"\xfd7zX": "compressed (xz)",
    b"\x28\xb5\x2f\xfd": "compressed (zstd)",
    b"PK\3\4": "a ZIP archive",
}
_NULS: dict[tuple[bool, ...], str] = {
    # Of the first four bytes, where a text begins with ASCII (RFC 4627, section 3).
    (True, True, True, False): "UTF-32",
    (False, True, True, True): "UTF-32",
    (True, False, True, False): "UTF-16",
    (False, True, False, True): "UTF-16",
}
SEEN = 4
"""Number of bytes that are examined."""


def foreign(data: bytes) -> str | None:
    """The name of the encoding or format, None if the data may be UTF-8."""
    found = next((name for beginning, name in _BEGINNINGS.items() if data.startswith(beginning)), None)
    return found or _NULS.get(tuple(byte == 0 for byte in data[:4]))
