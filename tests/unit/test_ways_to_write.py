"""The same message in several encodings, as it is read: compressed, as a CloudEvent, by a name."""

import contextlib
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    NOW,
    OPERATIONS,
    REPORTS,
    encoded,
    message,
    report_body,
)
from worker.model.compression import Unreadable, unpacked
from worker.model.messages import Incoming, Message, Origin, Rejected
from worker.model.parsing import parse, set_aliases
from worker.model.surrogates import whole

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
BODY = encoded(report_body(OPERATION, DEVICE, "SUCCESS"))
EVENT = {"specversion": "1.0", "id": "7", "source": "/drift", "type": "device-operation.report"}


def wrapped(
    body: bytes, properties: Mapping[str, Any] | None = None, headers: Mapping[str, Any] | None = None
) -> Message:
    return Message(body, NOW, origin=lambda: Origin("exchange", "key", properties or {}, headers or {}))


def structured(**more: object) -> Message:
    event = {**EVENT, "data": json.loads(BODY), **more}
    given = {name: value for name, value in event.items() if value is not None}
    return wrapped(encoded(given), {"content_type": "application/cloudevents+json; charset=utf-8"})


def binary(prefix: str, **more: object) -> Message:
    return wrapped(BODY, {}, {f"{prefix}{name}": value for name, value in {**EVENT, **more}.items()})


@pytest.mark.parametrize("make", [structured, *(lambda p=p, **m: binary(p, **m) for p in ("ce-", "cloudEvents:"))])
def test_a_cloud_event_says_id_and_time_where_its_data_has_none(make: Any) -> None:
    [item] = parse(make(time="2026-01-31T09:00:00Z"))
    [timeless] = parse(make(time="yesterday"))
    [other] = parse(make(source="/drift 7"))

    assert isinstance(item, Incoming)
    assert isinstance(timeless, Incoming)
    assert isinstance(other, Incoming)
    assert (item.key[1], item.at) == ("/drift 7", datetime(2026, 1, 31, 9, tzinfo=UTC))
    assert timeless.at == NOW
    assert other.key[1] != item.key[1]


def test_parts_of_what_was_compressed_are_kept_as_they_are_read() -> None:
    bodies = [report_body(OPERATION, DEVICE, state) for state in ("CREATED", "NONE")]
    sent = wrapped(gzip.compress(encoded({"reports": bodies})), {"content_encoding": "gzip"})

    created, unreadable = parse(replace(sent, type=REPORTS))

    assert isinstance(created, Incoming)
    assert isinstance(unreadable, Rejected)
    assert json.loads(unreadable.message.body) == bodies[1]
    assert unreadable.message.origin() == Origin("exchange", "key")


UNREADABLE = {
    "body: is UTF-16, and has to be JSON in UTF-8": wrapped(BODY.decode().encode("utf-16")),
    "body: is compressed (gzip), which content_encoding does not say; gzip and deflate are read": wrapped(
        gzip.compress(BODY)
    ),
    "body: is not UTF-8, and has to be JSON in UTF-8": wrapped(BODY.replace(b"drift", b"dr\xe4ft")),
    "body: is empty": wrapped(b""),
    "content_encoding: 'br' is not read; gzip and deflate are": wrapped(BODY, {"content_encoding": "br"}),
    "compression: 'application/x-bz2' is not read; gzip and zlib are": wrapped(
        BODY, {}, {"compression": "application/x-bz2"}
    ),
    "content_encoding gzip: the body is no such stream": wrapped(b"nonsense", {"content_encoding": "gzip"}),
    "content_encoding gzip: the stream ends early": wrapped(
        gzip.compress(BODY)[:-9], {"content_encoding": "gzip"}
    ),
    "content_encoding gzip: the body grows beyond 67,108,864 bytes": wrapped(
        gzip.compress(bytes(2**26 + 1)), {"content_encoding": "gzip"}
    ),
    "content_encoding gzip: the body is more than 10,000 streams": wrapped(
        gzip.compress(b"") * 500_000,
        {"content_encoding": "gzip"},  # to copy the rest for each would take hours
    ),
    "data_base64: is no base64": structured(data=None, data_base64="?"),
}


@pytest.mark.parametrize("detail", UNREADABLE)
def test_what_is_not_read_is_named_for_what_it_is(detail: str) -> None:
    [item] = parse(UNREADABLE[detail])

    assert isinstance(item, Rejected)
    assert item.detail == detail


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "deflate, gzip"]))
def test_no_bytes_break_the_unpacking(body: bytes, coding: str) -> None:
    with contextlib.suppress(Unreadable):
        assert len(unpacked(body, 1_000, coding)) <= 1_000


@pytest.fixture
def foreign_types() -> Iterator[None]:
    set_aliases({"MyApp.DeviceReport, MyApp": "device-operation.report"})
    yield
    set_aliases({})


@pytest.mark.usefixtures("foreign_types")
def test_a_frameworks_name_is_a_type() -> None:
    sent = message(BODY, "MyApp.DeviceReport, MyApp")
    event = binary("ce-", type="MyApp.DeviceReport, MyApp")

    assert [type(item) for each in (sent, event) for item in parse(each)] == [Incoming, Incoming]
    set_aliases({})
    assert [type(item) for each in (sent, event) for item in parse(each)] == [Rejected, Rejected]


@given(st.text())
def test_text_without_halves_stays_as_it_is(text: str) -> None:
    for body in (encoded([text]), json.dumps([text], ensure_ascii=False).encode()):
        assert json.loads(whole(body)) == json.loads(body)


@pytest.mark.parametrize(
    "body", [rb'"\ud83d', rb'"\ud83"', rb'"\uD83D\uDE00\u00e9"', b'"\xff\\ud83d"', rb'"\ud83d"' + b"[" * 99_999]
)
def test_what_has_no_halves_or_is_no_json_stays_as_it_is(body: bytes) -> None:
    assert whole(body) is body


def test_half_of_a_character_that_is_only_spelt_out_stays_as_it_is() -> None:
    assert json.loads(whole(rb'"a \\ud83d \ud83d"')) == r"a \ud83d ?"


@pytest.mark.parametrize(
    ("body", "type_"),
    [
        ({"id": str(OPERATION), "operation_type": "REBOOT", "device_ids": [str(DEVICE)]}, ANNOUNCEMENT),
        ({"reports": [report_body(OPERATION, DEVICE, "SUCCESS")]}, REPORTS),
        ({**report_body(OPERATION, DEVICE, "SUCCESS"), "device_count": 1, "service_id": 7}, None),
        ([], None),
    ],
)
def test_a_message_without_its_type_is_told_which_it_looks_like(body: object, type_: str | None) -> None:
    [item] = parse(message(body))
    assert isinstance(item, Rejected)
    assert ("; was it to be of type " in item.detail) == (type_ is not None)
    assert type_ is None or item.detail.endswith(f"; was it to be of type {type_}?")
