"""Headers that no client library writes, as they are decoded."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.frames import NOT_UTF8, entry, nested, sized, table
from worker.amqp import lenient_decoding

IN_NANOSECONDS = struct.pack(">Q", 1_700_000_000_000_000_000)
BAD_FIELDS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "a time in nanoseconds": (entry(b"bad", b"T", IN_NANOSECONDS), {"bad": 1_700_000_000_000_000_000}),
    "a name that is not UTF-8": (entry(NOT_UTF8, b"V", b""), {r"\xff\xfe": None}),
    "a value that is not UTF-8": (entry(b"bad", b"S", sized(NOT_UTF8)), {"bad": NOT_UTF8}),
    "a bad time in a table": (
        entry(b"bad", b"F", table(entry(b"t", b"T", IN_NANOSECONDS), entry(b"n", b"B", b"\5"))),
        {"bad": {"t": 1_700_000_000_000_000_000, "n": 5}},
    ),
    "a bad name in a table in an array": (
        entry(b"bad", b"A", sized(b"F" + table(entry(NOT_UTF8, b"t", b"\1")) + b"B\5")),
        {"bad": [{r"\xff\xfe": True}, 5]},
    ),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_a_header_that_cannot_be_decoded_hides_no_other(case: str) -> None:
    """Neither those before it, nor those after it."""
    bad, stands_for = BAD_FIELDS[case]
    before, after = (
        entry(b"x-delivery-count", b"l", struct.pack(">q", 12)),
        entry(b"traceparent", b"S", sized(b"00")),
    )

    size, found = lenient_decoding.table(table(before, bad, after))

    assert found == {"x-delivery-count": 12, **stands_for, "traceparent": "00"}
    assert size == len(table(before, bad, after))


def test_headers_that_nest_beyond_all_measure_hide_no_other() -> None:
    deep = table(
        entry(b"deep", b"F", nested(600)),
        entry(b"x-delivery-count", b"l", struct.pack(">q", 12)),
        entry(b"unknown kind", b"?", b"\1\2\3"),
    )

    _, found = lenient_decoding.table(deep)

    assert found["x-delivery-count"] == 12
    assert found["unknown kind"] == {"undecodable, base64": "PwECAw=="}


@given(st.binary(max_size=300))
def test_no_table_whatever_its_bytes_breaks_anything(data: bytes) -> None:
    _, found = lenient_decoding.table(sized(data))

    assert isinstance(found, dict)
