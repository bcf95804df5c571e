"""The same message in several encodings, through a broker and over HTTP."""

import gzip
import json
import zlib
from typing import Any

import httpx
import pytest
from aio_pika.abc import AbstractChannel

from tests.support.brokering import declared, send
from tests.support.command import Deviceops
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    encoded,
    report_body,
)

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
PATH = f"/v0/operations/{OPERATION}/devices/{DEVICE}/"
BODY = encoded(report_body(OPERATION, DEVICE, "SUCCESS"))
EVENT = {"specversion": "1.0", "id": "7", "source": "/drift", "type": "device-operation.report"}


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
