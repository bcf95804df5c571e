"""Reports, announcements and cancellations over HTTP: the processing of messages, and an answer to each."""

import json
from uuid import uuid4

import httpx

from tests.support.command import Deviceops
from tests.support.seed import DEVICE_ID, OPERATION
from tests.support.serving import (
    DEVICE_OPERATIONS,
    DEVICES,
    NOWHERE,
    OF_OPERATION,
    OPERATIONS,
    PATH,
    REPORT,
    announce,
    put,
    refused,
    serving,
    token,
)


def test_a_report_gets_its_verdict_and_a_conflict_what_would_be_allowed(api: httpx.Client) -> None:
    verdicts = [
        put(api, state, reason=str(state)) for state in ("CREATED", "PROCESSING", 30, "PROCESSING", "FAILED")
    ]
    assert [response.status_code for response in verdicts] == [200] * 5
    assert [response.headers["X-Verdict"] for response in verdicts] == [
        "applied",
        "applied",
        "late",
        "duplicate",  # the same body is the same report
        "applied",
    ]
    assert put(api, "FAILURE", reason="once more").headers["X-Verdict"] == "repeated"

    contradicted = put(api, "SUCCESS")

    assert refused(contradicted, 400) == {
        "current_state": "FAILURE",
        "reported_state": "SUCCESS",
        "allowed_states": [],
    }
    assert contradicted.headers["X-Verdict"] == "conflict"
    assert api.get("/v0/dead-letters/", params={"status": "all"}).json()["content"]["count"] == 0
    mismatched = put(api, "FAILURE", operation_type="REBOOT")
    assert refused(mismatched, 400) is None
    assert "'REBOOT'" in mismatched.json()["message"]


def test_an_idempotency_key_is_the_reports_id(api: httpx.Client) -> None:
    put(api, "CREATED")
    first = api.put(PATH, json={**REPORT, "state": "INITIATED"}, headers={"Idempotency-Key": "a key"})
    again = api.put(PATH, json={**REPORT, "state": "PROCESSING"}, headers={"Idempotency-Key": "a key"})

    assert [first.headers["X-Verdict"], again.headers["X-Verdict"]] == ["applied", "duplicate"]
    assert again.json()["content"]["state"] == "INITIATED"


def test_a_report_about_what_is_not_registered_is_not_found_and_not_kept(api: httpx.Client) -> None:
    refused(put(api, "SUCCESS"), 404)

    announce(api, [DEVICE_ID])

    assert api.get(PATH).json()["content"]["state"] == "CREATED"
    for path in (f"{OPERATIONS}{NOWHERE}/", f"{OPERATIONS}{NOWHERE}/devices/", f"{DEVICE_OPERATIONS}{NOWHERE}/"):
        refused(api.get(path), 404)
    refused(api.get(f"{OPERATIONS}{NOWHERE}/events"), 404)
    refused(api.get(f"/v0/devices/{NOWHERE}/operations/"), 404)
    refused(api.put(f"{OPERATIONS}{NOWHERE}/", json={"state": "CANCELLED"}), 404)
    refused(api.get("/v0/dead-letters/1/"), 404)


def test_what_is_not_settled_can_be_asked_to_be_cancelled(api: httpx.Client) -> None:
    announce(api, DEVICES[:3])
    paths = [f"{DEVICE_OPERATIONS}{device}/" for device in DEVICES[:3]]
    put(api, "TIMEOUT", paths[1])

    answers = [api.put(path, json={"state": "CANCELLATION_REQUESTED", "reason": "wrong"}) for path in paths[:2]]

    assert answers[0].json()["content"]["state"] == "CANCELLED"
    assert answers[0].json()["content"]["reason"] == "wrong"
    assert refused(answers[1], 400)["current_state"] == "TIMEOUT"
    again = api.put(paths[0], json={"state": "CANCELLATION_REQUESTED"})
    assert (again.status_code, again.headers["X-Verdict"]) == (200, "repeated")


def test_cancelling_an_operation_cancels_what_is_not_settled_and_nothing_else(
    deviceops_at_server: Deviceops, api: httpx.Client
) -> None:
    announce(api, DEVICES)
    for device, state in zip(DEVICES, ("SUCCESS", "TIMEOUT", "PROCESSING"), strict=False):
        put(api, state, f"{DEVICE_OPERATIONS}{device}/")

    answer = api.put(OF_OPERATION, json={"state": "CANCELLED", "reason": "enough"})

    assert answer.status_code == 200
    assert answer.json() == {"operationId": OPERATION["id"], "status": "COMPLETED"}
    found = api.get(DEVICE_OPERATIONS).json()["content"]["results"]
    states = {each["device_id"]: (each["state"], each["reason"]) for each in found}
    assert states[DEVICES[0]][0] == "SUCCESS"
    assert states[DEVICES[1]][0] == "TIMEOUT"
    assert {states[device] for device in DEVICES[2:]} == {("CANCELLED", "enough")}
    assert deviceops_at_server.document("recount")["drifted"] == []
    refused(api.put(OF_OPERATION, json={"state": "COMPLETED"}), 400)


def test_an_announcement_goes_by_its_key_and_the_contract_of_messages(api: httpx.Client) -> None:
    key = {"Idempotency-Key": "once"}
    first = api.post(OPERATIONS, json={**OPERATION, "reason": "first"}, headers=key)
    again = api.post(OPERATIONS, json={**OPERATION, "reason": "again"}, headers=key)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["Location"].endswith(OF_OPERATION)
    assert again.json()["content"]["reason"] == "first"
    faulty = {"id": "no id", "operation_type": 5, "device_count": -1}
    faults = refused(api.post(OPERATIONS, json=faulty), 400)["faults"]
    assert [fault["where"] for fault in faults] == ["id", "operation_type", "device_count"]
    endless = json.dumps({**OPERATION, "arguments": {"x": float("inf")}})
    refused(api.post(OPERATIONS, content=endless, headers={"Content-Type": "application/json"}), 400)  # is no JSON
    nameless = refused(
        api.post(OPERATIONS, json={"id": OPERATION["id"], "operation_type": "", "operation": None}), 400
    )
    assert "operation_type" in json.dumps(nameless)


def test_services_and_their_tokens_are_trusted_as_on_the_broker(deviceops_on_sqlite: Deviceops) -> None:
    services = json.dumps({"drift-service": {"states": ["CREATED", "SUCCESS"]}, "tests": {}})
    deviceops = deviceops_on_sqlite.with_settings(services=services, verify_user_id="true")
    drift, setting = token(deviceops, "drift-service")
    with serving(deviceops.with_settings(api_tokens=setting)) as server, server.client(drift) as api:
        assert put(api, "CREATED").is_success
        assert put(api, "SUCCESS").is_success
        assert "may not report FAILURE" in put(api, "FAILURE").json()["message"]
        refused(put(api, "COMPLETED"), 403)
        refused(api.put(OF_OPERATION, json={"state": "CANCELLED"}), 403)
        with server.client() as other:
            pretending = put(other, "COMPLETED")
            refused(pretending, 403)
            assert "its API token is 'tests'" in pretending.json()["message"]
            assert put(other, "COMPLETED", service_id="tests").is_success


def test_a_cancellations_key_is_not_that_of_a_report(api: httpx.Client) -> None:
    announce(api, DEVICES[:2])
    key = {"Idempotency-Key": "one for all"}
    api.put(PATH, json={**REPORT, "state": "DISPATCHED"}, headers=key)

    api.put(OF_OPERATION, json={"state": "CANCELLED"}, headers=key)

    found = api.get(DEVICE_OPERATIONS).json()["content"]["results"]
    assert {each["state"] for each in found} == {"CANCELLED"}


def test_a_cancellation_that_is_sent_again_spares_what_was_announced_since(api: httpx.Client) -> None:
    announce(api, DEVICES[:2])
    for key, cancelled in (("first", 2), ("first", 2), ("second", 3)):
        answer = api.put(OF_OPERATION, json={"state": "CANCELLED"}, headers={"Idempotency-Key": key})
        assert answer.is_success
        found = api.get(DEVICE_OPERATIONS, params={"state": "CANCELLED"}).json()["content"]["results"]
        assert len(found) == cancelled
        announce(api, DEVICES[:3])


def test_a_report_with_the_id_of_a_parked_one_is_a_duplicate_of_what_is_not_registered(
    deviceops_at_server: Deviceops, api: httpx.Client
) -> None:
    parked = {**REPORT, "operation_id": OPERATION["id"], "device_id": DEVICE_ID, "report_id": "parked"}
    deviceops_at_server.out("ingest", "-", lines=json.dumps(parked))

    again = api.put(PATH, json={**REPORT, "state": "CREATED"}, headers={"Idempotency-Key": "parked"})

    refused(again, 404)
    assert again.headers["X-Verdict"] == "duplicate"


def test_the_first_and_the_last_moment_are_kept_as_moments(
    deviceops_at_server: Deviceops, api: httpx.Client
) -> None:
    for time, day in {
        "0001-01-01T00:00:00Z": "0001-01-01",
        "0001-01-01T00:00:00+14:00": "0001-01-01",
        "9999-12-31T23:59:59.999999Z": "9999-12-31",
        "9999-12-31T23:59:59-12:00": "9999-12-31",
    }.items():
        device = str(uuid4())
        created = {"operation_type": "CONVERGE", "state": "CREATED", "service_id": "a", "occurred_at": time}
        assert api.put(f"{OPERATIONS}{OPERATION['id']}/devices/{device}/", json=created).is_success
        found = api.get(f"{OPERATIONS}{OPERATION['id']}/devices/{device}/").json()["content"]
        assert found["device_operation_activity"][0]["created_at"][:10] == day
    announce(api, [DEVICE_ID])
    assert put(api, "PROCESSING", occurred_at="0001-01-01T00:00:00Z").is_success
    message = {**REPORT, "operation_id": OPERATION["id"], "device_id": DEVICE_ID}
    deviceops_at_server.out("ingest", "-", lines=json.dumps({**message, "occurred_at": "0001-01-01T00:00:00Z"}))
    activity = api.get(PATH).json()["content"]["device_operation_activity"]
    assert [entry["created_at"][:4] for entry in activity[1:]] == ["0001", "0001"]


def test_a_body_with_a_mark_is_read_and_one_in_another_encoding_is_named(api: httpx.Client) -> None:
    announce(api, [DEVICE_ID])
    text = json.dumps({**REPORT, "state": "SUCCESS"})
    headers = {"Content-Type": "application/json"}

    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        answer = api.put(PATH, content=text.encode(encoding), headers=headers)
        problem = f"is {encoding[:6].upper()}, not JSON in UTF-8"
        assert refused(answer, 400) == {"faults": [{"where": "body", "problem": problem}]}
    answer = api.put(PATH, content=b"\xef\xbb\xbf" + text.encode(), headers=headers)
    assert answer.json()["content"]["state"] == "SUCCESS"
