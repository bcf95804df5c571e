"""The HTTP API: the seed's documents key by key, pages, reports and announcements, one shape for all errors."""

import json
import socket
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from tests.support.command import Deviceops
from tests.support.seed import DEVICE_ID, OPERATION, SEED, assert_same_shape
from tests.support.serving import (
    DEVICE_OPERATIONS,
    DEVICES,
    NOWHERE,
    OF_OPERATION,
    OPERATIONS,
    PATH,
    REPORT,
    Server,
    announce,
    put,
    refused,
    serving,
)


def test_every_response_of_the_seed_comes_key_by_key_and_type_by_type(api: httpx.Client) -> None:
    for operation in (NOWHERE, OPERATION["id"], str(uuid4())):
        announced = announce(api, DEVICES[:3], id=operation)
        assert announced.status_code == 201
        assert_same_shape(announced.json(), {"content": OPERATION})
    updated = put(api, "SUCCESS")
    assert updated.headers["X-Verdict"] == "applied"
    middle = {"limit": 1, "offset": 1}  # the seed's pages have neighbours on both sides
    answers = {
        "device_operation": [updated, api.get(PATH)],
        "device_operations_of_operation": [api.get(DEVICE_OPERATIONS, params=middle)],
        "operations_of_device": [
            api.get(f"/v0/devices/{DEVICE_ID}/operations/", params=middle),
            api.get(OPERATIONS, params=middle),
        ],
    }
    assert answers.keys() == SEED.keys() - {"update_device_operation"}
    for name, responses in answers.items():
        for response in responses:
            assert response.status_code == 200, response.text
            assert_same_shape(response.json(), SEED[name], name)
    assert updated.json() == api.get(PATH).json()
    assert_same_shape(api.get(OF_OPERATION).json(), {"content": OPERATION})


def test_pages_lead_to_their_neighbours_with_every_parameter_of_the_request(
    server: Server, api: httpx.Client
) -> None:
    announce(api, DEVICES)
    for device in DEVICES[:4]:
        put(api, "PROCESSING", f"{DEVICE_OPERATIONS}{device}/")
    wanted = {"state": "40", "ordering": "-updated_at", "limit": "2"}

    first = api.get(DEVICE_OPERATIONS, params=wanted).json()["content"]
    second = api.get(first["next"]).json()["content"]

    assert (first["count"], first["previous"], second["next"]) == (4, None, None)
    assert first["next"].startswith(f"{server.url}{DEVICE_OPERATIONS}?")
    assert parse_qs(urlsplit(first["next"]).query) == {
        name: [value] for name, value in {**wanted, "offset": "2"}.items()
    }
    assert api.get(second["previous"]).json()["content"] == first
    devices = [found["device_id"] for found in first["results"] + second["results"]]
    assert devices == DEVICES[3::-1]


def test_a_cursor_walks_to_the_end_and_back_again(api: httpx.Client) -> None:
    announce(api, DEVICES)
    page = api.get(DEVICE_OPERATIONS, params={"cursor": "", "limit": 3}).json()["content"]
    assert page["previous"] is None
    pages = [page]
    while page["next"]:
        assert "offset" not in page["next"]
        page = api.get(page["next"]).json()["content"]
        pages.append(page)

    assert [len(page["results"]) for page in pages] == [3, 3, 3, 1]
    found = [each["device_id"] for page in pages for each in page["results"]]
    assert sorted(found) == DEVICES
    for earlier, later in pairwise(pages):
        assert api.get(later["previous"]).json()["content"]["results"] == earlier["results"]


def test_a_page_of_operations_is_ordered_and_filtered_by_their_states(api: httpx.Client) -> None:
    ids = [str(uuid4()) for _ in range(3)]
    for number, id_ in enumerate(ids):
        announce(api, [DEVICE_ID], id=id_, created_at=f"2026-01-0{number + 1}T00:00:00Z")
    put(api, "SUCCESS", f"{OPERATIONS}{ids[1]}/devices/{DEVICE_ID}/")

    def found(path: str, **parameters: str) -> list[str]:
        return [operation["id"] for operation in api.get(path, params=parameters).json()["results"]]

    for path in (OPERATIONS, f"/v0/devices/{DEVICE_ID}/operations/"):
        assert found(path) == ids[::-1]
        assert found(path, ordering="created_at") == ids
        assert found(path, state="COMPLETED") == [ids[1]]
        assert found(path, ordering="-state") == [ids[1], ids[2], ids[0]]
        assert found(path, ordering="-updated_at")[0] == ids[1]
    assert refused(api.get(OPERATIONS, params={"state": "50"}), 400)["faults"][0]["where"] == "state"


def test_dead_letters_are_listed_shown_replayed_and_discarded_as_on_the_command_line(
    deviceops_at_server: Deviceops, api: httpx.Client
) -> None:
    early = {**REPORT, "operation_id": OPERATION["id"], "device_id": DEVICE_ID}
    deviceops_at_server.out("ingest", "-", lines=f"{json.dumps(early)}\nno report\nnone either\n")

    page = api.get("/v0/dead-letters/").json()["content"]
    assert page["results"] == deviceops_at_server.document("dead-letters", "list")
    [parked] = api.get("/v0/dead-letters/", params={"operation_id": OPERATION["id"]}).json()["content"]["results"]
    assert api.get("/v0/dead-letters/", params={"message_id": "unknown"}).json()["content"]["results"] == []
    shown = api.get(f"/v0/dead-letters/{parked['id']}/").json()["content"]
    assert shown == deviceops_at_server.document("dead-letters", "show", str(parked["id"]))
    dry = api.post("/v0/dead-letters/replay/", json={"all": True, "dry_run": True}).json()["content"]
    assert [letter["outcome"] for letter in dry["dead_letters"]] == [each["reason"] for each in page["results"]]
    done = api.post("/v0/dead-letters/replay/", json={"ids": [parked["id"]]}).json()["content"]
    assert (done["selected"], done["still_dead"]) == (1, {"unknown_device_operation": 1})
    discarding = {"reason": "malformed", "because": "noise"}
    assert api.post("/v0/dead-letters/discard/", json=discarding).json() == {"content": {"discarded": 2}}
    [malformed, _] = deviceops_at_server.document("dead-letters", "list", "--status", "discarded")
    history = deviceops_at_server.document("dead-letters", "show", str(malformed["id"]))["history"]
    assert [(entry["action"], entry["actor"], entry["outcome"]) for entry in history[1:]] == [
        ("discarded", "tests", "noise")
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"limit": 3},
        {"all": False},
        {"raeson": "conflict", "all": True},
        {"reason": None, "all": True},
        {"ids": [0]},
        {"ids": ["1"]},
    ],
)
def test_what_changes_dead_letters_never_selects_them_by_accident(
    api: httpx.Client, body: dict[str, object]
) -> None:
    refused(api.post("/v0/dead-letters/replay/", json=body), 400)
    refused(api.post("/v0/dead-letters/discard/", json={**body, "because": "x"}), 400)
    refused(api.post("/v0/dead-letters/discard/", json={"all": True, "because": " "}), 400)
    refused(api.post("/v0/dead-letters/replay/", json={"ids": [4711]}), 404)


def test_every_fault_of_a_request_is_named(api: httpx.Client) -> None:
    content = refused(api.put(PATH, json={"state": "FINE", "occurred_at": 5}), 400)
    assert [fault["where"] for fault in content["faults"]] == [
        "state",
        "service_id",
    ]
    selecting: dict[str, object] = {
        "ids": ["1"],
        "reason": "x",
        "operation_id": "x",
        "service_id": "",
        "message_id": "",
    }
    selecting |= {"since": "x", "until": 5}
    content = refused(api.post("/v0/dead-letters/replay/", json=selecting), 400)
    assert [fault["where"] for fault in content["faults"]] == ["ids.0", *list(selecting)[1:]]
    for parameters, where in (
        ({"limit": 0}, "limit"),
        ({"limit": 501}, "limit"),
        ({"offset": -1}, "offset"),
        ({"state": "FINE"}, "state"),
        ({"ordering": "colour"}, "ordering"),
        ({"cursor": "there"}, "cursor"),
        ({"status": "open"}, "status"),
    ):
        [fault] = refused(api.get(DEVICE_OPERATIONS, params=parameters), 400)["faults"]
        assert fault["where"] == where
    json_type = {"Content-Type": "application/json"}
    assert refused(api.put(PATH, content=b'{"state":', headers=json_type), 400)["faults"][0]["where"] == "body"
    refused(api.put(PATH, content=b"\xff\xfe", headers=json_type), 400)
    refused(api.put(PATH, content=b"[" * 100_000, headers=json_type), 400)
    refused(api.put(PATH, data={"state": "SUCCESS"}), 415)
    refused(api.put(PATH, content=json.dumps(REPORT).encode()), 415)  # any page can have a browser send it
    for text in ("\\udfff", "\\ud800x"):
        for path in (PATH, OF_OPERATION, "/v0/dead-letters/discard/"):
            body = f'{{"state": "CANCELLED", "all": true, "because": "{text}", "reason": "{text}"}}'
            refused(api.request("POST" if "dead" in path else "PUT", path, content=body, headers=json_type), 400)
    refused(api.post("/v0/dead-letters/replay/", content=b'{"\\ud800": null}', headers=json_type), 400)
    control = refused(api.post("/v0/dead-letters/replay/", json={"a\nb\x1b[31m": 1, "all": True}), 400)
    assert control["faults"][0]["where"] == r"a\nb\x1b[31m"
    refused(api.get(f"/v0/dead-letters/{'1' * 5_000}/"), 404)
    for path in ("/v0/dead-letters/", OPERATIONS, OF_OPERATION, "/openapi.json"):
        refused(api.get(f"{path}%0A"), 404)
    refused(api.get("/v0/dead-letters/%0A/", follow_redirects=True), 404)
    refused(api.get(f"{OPERATIONS}497f6eca/"), 400)
    assert put(api, "CREATED", reason="no type of its own").is_success


def test_every_error_has_one_shape_and_every_response_an_id_that_the_log_has(deviceops: Deviceops) -> None:
    mine = str(uuid4())
    with serving(deviceops) as server, server.client() as api:
        responses = [
            api.get("/nowhere"),
            api.delete(PATH),
            api.get(OPERATIONS, headers={"X-Request-ID": mine}),
            api.get(OPERATIONS, headers={"Host": "a b"}),
        ]
    refused(responses[0], 404)
    refused(responses[1], 405)
    assert responses[1].headers["Allow"] == "GET, HEAD, PUT"
    refused(responses[3], 400)
    assert responses[2].headers["X-Request-ID"] == mine

    assert server.stop() == 0

    logged = {entry["request_id"]: entry["status"] for entry in server.log if entry["event"] == "request"}
    assert logged == {response.headers["X-Request-ID"]: response.status_code for response in responses}


def test_what_comes_is_bounded(api: httpx.Client) -> None:
    large = b'{"state": "' + b"x" * 2_000_000 + b'"}'
    json_type = {"Content-Type": "application/json"}
    refused(api.put(PATH, content=large, headers=json_type), 413)
    pieces = (large[start : start + 65_536] for start in range(0, len(large), 65_536))
    refused(api.put(PATH, content=pieces, headers=json_type), 413)
    refused(api.put(PATH, json={**REPORT, "service_id": "x" * 256}), 400)
    refused(api.put(PATH, json=REPORT, headers={"Idempotency-Key": "x" * 256}), 400)
    refused(api.get(OPERATIONS, params={"trace": "x" * 16_384}), 431)
    refused(api.get(OPERATIONS, headers={"Trace": "x" * 16_384}), 431)


def test_what_is_no_http_is_answered_as_any_other_error(server: Server) -> None:
    address = urlsplit(server.url)
    for sent in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000):
        with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
            connection.sendall(sent)
            received = connection.makefile("rb").read()
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert b"x-request-id: " in head.lower()
        assert json.loads(body) == {"code": 400, "message": "Invalid HTTP request received.", "content": None}
