"""The same message in many writings: compressed, as a CloudEvent, with a byte order mark, by a name."""

import contextlib
import gzip
import json
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from aio_pika.abc import AbstractChannel
from hypothesis import given
from hypothesis import strategies as st

from tests.support.brokering import declared, send
from tests.support.command import Deviceops
from tests.support.databases import read
from tests.support.letters import rows
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    NOW,
    OPERATIONS,
    REPORTS,
    encoded,
    message,
    process,
    report_body,
)
from worker.model.compression import Unreadable, unpacked
from worker.model.messages import Incoming, Message, Origin, Rejected
from worker.model.parsing import parse, set_aliases
from worker.model.surrogates import whole
from worker.store.database import Database
from worker.store.dead_letters import stored_message

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
PATH = f"/v0/operations/{OPERATION}/devices/{DEVICE}/"
BODY = encoded(report_body(OPERATION, DEVICE, "SUCCESS"))
EVENT = {"specversion": "1.0", "id": "7", "source": "/drift", "type": "device-operation.report"}


def wrapped(
    body: bytes, properties: Mapping[str, Any] | None = None, headers: Mapping[str, Any] | None = None
) -> Message:
    return Message(body, NOW, origin=lambda: Origin("exchange", "key", properties or {}, headers or {}))


def raw(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(body) + stream.flush()


def structured(**more: object) -> Message:
    event = {**EVENT, "data": json.loads(BODY), **more}
    given = {name: value for name, value in event.items() if value is not None}
    return wrapped(encoded(given), {"content_type": "application/cloudevents+json; charset=utf-8"})


def binary(prefix: str, **more: object) -> Message:
    return wrapped(BODY, {}, {f"{prefix}{name}": value for name, value in {**EVENT, **more}.items()})


WRITINGS = {
    "a byte order mark": wrapped(b"\xef\xbb\xbf" + BODY),
    "gzip": wrapped(gzip.compress(BODY), {"content_encoding": "gzip"}),
    "gzip in two members": wrapped(
        gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), {"content_encoding": "GZIP"}
    ),
    "deflate": wrapped(zlib.compress(BODY), {"content_encoding": "deflate"}),
    "raw deflate": wrapped(raw(BODY), {"content_encoding": "deflate"}),
    "a byte order mark in gzip": wrapped(gzip.compress(b"\xef\xbb\xbf" + BODY), {"content_encoding": "gzip"}),
    "twice": wrapped(gzip.compress(zlib.compress(BODY)), {"content_encoding": "deflate, gzip"}),
    "a charset": wrapped(BODY, {"content_encoding": "utf-8"}),
    "kombu": wrapped(zlib.compress(BODY), {"content_encoding": "utf-8"}, {"compression": "application/x-gzip"}),
    "kombu's gzip": wrapped(gzip.compress(BODY), {}, {"compression": "gzip"}),
    "named so, and plain": wrapped(BODY, {"content_encoding": "gzip"}),
    "a structured CloudEvent": structured(),
    "data in base64": structured(data=None, data_base64=b64encode(BODY).decode()),
    "data as text": structured(data=BODY.decode()),
    **{f"a binary CloudEvent, {prefix}": binary(prefix) for prefix in ("cloudEvents:", "cloudEvents_", "ce-")},
    "a structured CloudEvent behind a byte order mark": wrapped(
        b"\xef\xbb\xbf" + structured().body, {"content_type": "application/cloudevents+json"}
    ),
    "a structured CloudEvent by another spelling": wrapped(
        structured().body, {"content_type": "Application/CloudEvents+JSON"}
    ),
    "named so, plain, and with a byte order mark": wrapped(b"\xef\xbb\xbf" + BODY, {"content_encoding": "gzip"}),
    "half of a character": wrapped(BODY[:-1] + rb', "reason": "\ud83d", "note": "\u00e9\ude00"}'),
    "no CloudEvent": wrapped(BODY, {"content_type": "application/cloudevents+json"}, {"ce-specversion": "0.3"}),
}


@pytest.mark.parametrize("writing", WRITINGS)
async def test_each_is_read_and_its_dead_letter_keeps_the_bytes(database: Database, writing: str) -> None:
    sent = WRITINGS[writing]

    tally = await process(database, [[sent]])

    [row] = await rows(database)
    assert tally.dead_letter_counts() == {"unknown_device_operation": 1}
    assert (row.body, row.device_id) == (sent.body, DEVICE)
    [again] = parse(stored_message(row))
    assert isinstance(again, Incoming)
    assert again.key[1] == row.report_id
    released = await process(database, [[message(report_body(OPERATION, DEVICE, "CREATED"))], [sent]])
    assert (released.released, released.duplicate) == (1, 1)
    assert (await read(database)).operations[OPERATION].devices[DEVICE].state == "SUCCESS"


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
    "body: is compressed (gzip), and has to be JSON in UTF-8": wrapped(gzip.compress(BODY)),
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


def test_a_name_for_no_type_is_a_clear_error(deviceops_on_sqlite: Deviceops) -> None:
    refused = deviceops_on_sqlite.with_settings(message_types='{"MyApp.X": "report"}')("status")

    assert refused.returncode == 2
    assert "DEVICEOPS_MESSAGE_TYPES MyApp.X" in refused.stderr


async def test_through_the_broker(deviceops_on_broker: Deviceops, channel: AbstractChannel) -> None:
    deviceops = deviceops_on_broker.with_settings(
        message_types=json.dumps({"MyApp.Announced, MyApp": ANNOUNCEMENT})
    )
    exchange = await declared(deviceops, channel)
    await send(exchange, gzip.compress(BODY), content_encoding="gzip")
    await send(exchange, zlib.compress(BODY), headers={"compression": "application/x-gzip"}, message_id="kombu")
    headers = {f"cloudEvents:{name}": value for name, value in EVENT.items()}
    await send(exchange, BODY, headers=headers)
    event = {**EVENT, "id": "8", "data": report_body(OPERATION, DEVICE, "completed")}
    await send(exchange, event, content_type="Application/CloudEvents+JSON; charset=utf-8")
    announced = {"id": str(OPERATION), "operation_type": "CONVERGE", "device_ids": [str(DEVICE)]}
    await send(exchange, announced, type="MyApp.Announced, MyApp")

    summary = deviceops.document("run", "--until-idle", "1")

    assert (summary["announced"], summary["released"], summary["applied"]) == (1, 4, 2)
    assert summary["repeated"] == 2
    assert deviceops.document("dead-letters", "list") == []


@pytest.mark.parametrize("state", ["success", "canceled", "TIMED_OUT", "failed"])
@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", b"\xef\xbb\xbf".__add__)],
)
def test_over_http(api: httpx.Client, coding: str, pack: Any, state: str) -> None:
    for each in ("created", state):
        body = pack(encoded({"state": each, "service_id": "s"}))
        answer = api.put(
            PATH, content=body, headers={"Content-Encoding": coding, "Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.headers["X-Verdict"]) == (200, "applied")


def test_a_body_that_grows_beyond_the_bound_is_refused_over_http(api: httpx.Client) -> None:
    body = gzip.compress(bytes(2_000_001))
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}

    answer = api.put(PATH, content=body, headers=headers)

    assert (answer.status_code, answer.json()["message"]) == (
        400,
        "Content-Encoding gzip: the body grows beyond 2,000,000 bytes",
    )


HALVES = ["\ud83d", "\ude00", "\ude00\ud83d", "a\ud83db", "\U0001f600\ud83d", "?"]
"""Of which one replacement would make fewer."""


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


@pytest.mark.parametrize("in_bulk", [False, True])
async def test_ids_that_differ_in_half_of_a_character_are_different(database: Database, in_bulk: bool) -> None:
    states = ["CREATED", "INITIATED", "DISPATCHED", "PROCESSING", "SUCCESS", "COMPLETED"]
    pairs = zip(states, HALVES, strict=True)
    bodies = [report_body(OPERATION, DEVICE, state, report_id=id_) for state, id_ in pairs]
    sent = [message({"reports": bodies}, REPORTS)] if in_bulk else [message(body) for body in bodies]

    first, again = await process(database, [sent]), await process(database, [sent])

    assert (first.duplicate, again.duplicate) == (0, len(HALVES))
    assert (await read(database)).operations[OPERATION].devices[DEVICE].state == "COMPLETED"


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
