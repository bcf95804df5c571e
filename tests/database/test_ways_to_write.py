"""The same message in many writings: compressed, as a CloudEvent, with a byte order mark, by a name."""

import gzip
import json
import zlib
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.databases import read
from tests.support.letters import rows
from tests.support.sending import (
    DEVICES,
    NOW,
    OPERATIONS,
    REPORTS,
    encoded,
    message,
    process,
    report_body,
)
from worker.model.messages import Incoming, Message, Origin
from worker.model.parsing import parse
from worker.store.database import Database
from worker.store.dead_letters import stored_message

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
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


HALVES = ["\ud83d", "\ude00", "\ude00\ud83d", "a\ud83db", "\U0001f600\ud83d", "?"]
"""Of which one replacement would make fewer."""


@pytest.mark.parametrize("in_bulk", [False, True])
async def test_ids_that_differ_in_half_of_a_character_are_different(database: Database, in_bulk: bool) -> None:
    states = ["CREATED", "INITIATED", "DISPATCHED", "PROCESSING", "SUCCESS", "COMPLETED"]
    pairs = zip(states, HALVES, strict=True)
    bodies = [report_body(OPERATION, DEVICE, state, report_id=id_) for state, id_ in pairs]
    sent = [message({"reports": bodies}, REPORTS)] if in_bulk else [message(body) for body in bodies]

    first, again = await process(database, [sent]), await process(database, [sent])

    assert (first.duplicate, again.duplicate) == (0, len(HALVES))
    assert (await read(database)).operations[OPERATION].devices[DEVICE].state == "COMPLETED"
