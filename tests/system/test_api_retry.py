"""Retries over HTTP: an operation of what failed of another one, once, and never of more than is meant."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx

from tests.support.command import Deviceops
from tests.support.seed import OPERATION
from tests.support.serving import (
    DEVICE_OPERATIONS,
    DEVICES,
    NOWHERE,
    OPERATIONS,
    announce,
    put,
    refused,
    serving,
    token,
)

STATES = ("FAILURE", "TIMEOUT", "CANCELLED", "SUCCESS", "PROCESSING")
"""Of the first devices."""


def fail(api: httpx.Client) -> None:
    """Have an operation of which some device operations have failed."""
    announce(api, DEVICES[: len(STATES)])
    for device, state in zip(DEVICES, STATES, strict=False):
        put(api, state, f"{DEVICE_OPERATIONS}{device}/")


def retry(api: httpx.Client, new: str, key: str | None = None, **more: object) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.post(OPERATIONS, json={"retry_of": OPERATION["id"], "id": new, **more}, headers=headers)


def devices_of(api: httpx.Client, operation: str) -> dict[str, str]:
    found = api.get(f"{OPERATIONS}{operation}/devices/").json()["content"]["results"]
    return {each["device_id"]: each["state"] for each in found}


def test_a_retry_is_one_operation_and_is_answered_with_it(
    deviceops_at_server: Deviceops, api: httpx.Client
) -> None:
    fail(api)
    new, other = str(uuid4()), str(uuid4())

    answers = [retry(api, new, **more) for more in ({}, {}, {"state": ["TIMEOUT", 60]}, {"key": "a key"})]

    assert [answer.status_code for answer in answers] == [201, 200, 200, 200]
    assert answers[0].headers["Location"].endswith(f"{OPERATIONS}{new}/")
    documents: list[Any] = [answer.json()["content"] for answer in answers]
    assert documents == [documents[0]] * len(answers)
    link = {"retry_of": OPERATION["id"], "state": ["FAILURE", "TIMEOUT"]}
    assert documents[0]["operation_device_query"] == link
    assert documents[0]["arguments"] == OPERATION["arguments"]
    assert (documents[0]["operation"], documents[0]["state"]) == (OPERATION["operation"], "RESOLVED")
    assert devices_of(api, new) == dict.fromkeys(DEVICES[:2], "CREATED")
    assert retry(api, other, "another key", state=["cancelled"]).status_code == 201
    assert retry(api, other, "another key", state=["FAILED"]).status_code == 200
    assert devices_of(api, other) == {DEVICES[2]: "CREATED"}
    assert deviceops_at_server.document("recount")["drifted"] == []


def test_each_group_can_be_retried_that_without_a_reason_too(api: httpx.Client) -> None:
    announce(api, DEVICES[:3])
    for device, more in zip(
        DEVICES, ({"reason": ""}, {"reason": "exit 1"}, {"code": "E1", "reason": ""}), strict=False
    ):
        put(api, "FAILURE", f"{DEVICE_OPERATIONS}{device}/", **more)
    groups = api.get(f"{OPERATIONS}{OPERATION['id']}/reasons/").json()["content"]["results"]
    assert sorted((each["code"] or "", each["reason"]) for each in groups) == [
        ("", ""),
        ("", "exit <number>"),
        ("E1", ""),
    ]

    for group in groups:
        wanted = parse_qs(urlsplit(group["devices"]).query, keep_blank_values=True)
        del wanted["state"]
        answer = retry(api, new := str(uuid4()), **{name: value for name, (value,) in wanted.items()})
        assert answer.status_code == 201
        assert answer.json()["content"]["operation_device_query"].items() >= {(k, v) for k, (v,) in wanted.items()}
        assert len(devices_of(api, new)) == group["count"] == 1


def test_a_retry_that_cannot_be_made_changes_nothing(api: httpx.Client) -> None:
    fail(api)
    new = str(uuid4())
    assert retry(api, new).status_code == 201

    conflict = retry(api, new, state=["FAILURE"])
    assert refused(conflict, 409) is None
    assert f"operation {new} exists, and is not the retry" in conflict.json()["message"]
    nothing = retry(api, NOWHERE, service_id="nobody")
    assert refused(nothing, 409) is None
    assert "with service 'nobody'" in nothing.json()["message"]
    unknown = api.post(OPERATIONS, json={"retry_of": NOWHERE, "id": str(uuid4())})
    assert refused(unknown, 404) is None
    assert refused(retry(api, OPERATION["id"]), 400) is None

    assert {each["id"] for each in api.get(OPERATIONS).json()["results"]} == {OPERATION["id"], new}


def test_what_is_not_understood_of_a_retry_retries_nothing(api: httpx.Client) -> None:
    fail(api)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("states", {"states": ["FAILURE"]}),
        ("operation_type", {"operation_type": "CONVERGE"}),
        ("state", {"state": []}),
        ("state", {"state": "FAILURE"}),
        ("state.0", {"state": ["SUCCESS"]}),
        ("state.0", {"state": ["FALIURE"]}),
        ("code", {"code": "disk full"}),
        ("service_id", {"service_id": ""}),
        ("reason", {"reason": "\0"}),
        ("id", {"id": "no id"}),
        ("retry_of", {"retry_of": 5}),
    ]
    for where, more in cases:
        content = refused(retry(api, str(uuid4()), **more), 400)
        assert [fault["where"] for fault in content["faults"]] == [where]
    assert "SUCCESS cannot be retried" in retry(api, NOWHERE, state=["SUCCESS"]).json()["message"]
    refused(api.post(OPERATIONS, json={"retry_of": OPERATION["id"]}), 400)
    null = api.post(OPERATIONS, json={**OPERATION, "id": NOWHERE, "retry_of": None})
    assert null.status_code == 201  # null counts as absent: an announcement
    assert len(api.get(OPERATIONS).json()["results"]) == 2


def test_who_may_not_announce_may_not_retry(deviceops_on_sqlite: Deviceops) -> None:
    services = json.dumps({"dispatcher": {"operation_types": ["OTHER"]}, "tests": {}, "drift-service": {}})
    deviceops = deviceops_on_sqlite.with_settings(services=services, verify_user_id="true")
    dispatcher, setting = token(deviceops, "dispatcher", ["update:operation"])
    reader, more = token(deviceops, "reader", ["read:operation"])
    tokens = json.dumps({**json.loads(setting), **json.loads(more)})
    new = str(uuid4())
    with serving(deviceops.with_settings(api_tokens=tokens)) as server, server.client() as api:
        announce(api, DEVICES[:1])
        put(api, "FAILURE", f"{DEVICE_OPERATIONS}{DEVICES[0]}/", service_id="tests")
        with server.client(dispatcher) as other:
            denied = retry(other, new)
            refused(denied, 403)
            assert "'dispatcher' may not report on a" in denied.json()["message"]
        with server.client(reader) as other:
            refused(retry(other, new), 403)
        assert retry(api, new).status_code == 201
