"""The documents of the API reference that the project grew from go in and come out, key by key, type by type."""

import json
from typing import Any

from tests.support.command import Deviceops
from tests.support.seed import DEVICE_ID, DEVICE_OPERATION, OPERATION, SEED, assert_same_shape

REPORT = {**SEED["update_device_operation"], "operation_id": OPERATION["id"], "device_id": DEVICE_ID}


def line(body: dict[str, Any], type_: str = "device-operation.report", message_id: str | None = None) -> str:
    return json.dumps({"type": type_, "message_id": message_id, "body": body}) + "\n"


def test_the_seeds_operation_is_announced_and_comes_out_as_it_went_in(deviceops: Deviceops) -> None:
    deviceops.out("ingest", "-", lines=line(OPERATION, "operation.announced"))

    document = deviceops.document("status", OPERATION["id"])

    announced_by = {"updated_by": OPERATION["created_by"]}
    ours = {key: document[key] for key in ("updated_at", "operation_activity")}
    assert document == {**OPERATION, **announced_by, **ours}
    assert [entry["operation_state"] for entry in document["operation_activity"]] == ["CREATED"]
    assert_same_shape(document, OPERATION)
    assert deviceops.document("status") == [document]


def test_the_seeds_update_is_a_report_and_device_prints_the_seeds_device_operation(deviceops: Deviceops) -> None:
    registration = {**REPORT, "state": "CREATED", "reason": "", "occurred_at": "2019-08-24T14:15:22Z"}
    summary = deviceops.document("ingest", "-", lines=line(registration) + line(REPORT))
    assert summary["applied"] == 2

    document = deviceops.document("device", OPERATION["id"], DEVICE_ID)

    assert_same_shape(document, DEVICE_OPERATION)
    assert (document["state"], document["reason"]) == ("SUCCESS", "test")
    assert document["created_at"] == "2019-08-24T14:15:22Z"
    activity = document["device_operation_activity"]
    assert activity[0] == DEVICE_OPERATION["device_operation_activity"][0]
    assert [entry["device_operation_state"] for entry in activity] == ["CREATED", "SUCCESS"]


def test_devices_prints_the_seeds_page_with_the_addresses_of_its_neighbours(deviceops: Deviceops) -> None:
    reports = [{**REPORT, "device_id": DEVICE_ID[:-1] + digit, "state": "CREATED"} for digit in "012"]
    deviceops.out("ingest", "-", lines="".join(map(line, reports)))

    page = deviceops.document("devices", OPERATION["id"], "--limit", "1", "--offset", "1")

    assert_same_shape(page, {**SEED["device_operations_of_operation"]["content"], "results": [DEVICE_OPERATION]})
    assert (page["count"], len(page["results"])) == (3, 1)
    address = f"/v0/operations/{OPERATION['id']}/devices/"
    assert page["previous"] == f"{address}?limit=1&offset=0"
    assert page["next"] == f"{address}?limit=1&offset=2"
    last = deviceops.document("devices", OPERATION["id"], "--limit", "2", "--offset", "2")
    assert last["next"] is None


def test_an_operation_that_only_reports_named_has_the_seeds_keys_too(deviceops: Deviceops) -> None:
    deviceops.out("ingest", "-", lines=line({**REPORT, "state": 10}))

    document = deviceops.document("status", OPERATION["id"])

    assert list(document) == list(OPERATION)
    assert document["operation"] == "CONVERGE"
    assert document["created_by"] is None
    assert document["operation_stats"]["device_operation_statuses_count"]["resolved_device_count"] == 1


def test_devices_filters_by_a_states_name_or_code(deviceops: Deviceops) -> None:
    devices = [DEVICE_ID[:-1] + digit for digit in "012"]
    reports = [{**REPORT, "device_id": device, "state": "CREATED"} for device in devices]
    deviceops.out("ingest", "-", lines="".join(map(line, [*reports, {**REPORT, "device_id": devices[1]}])))

    for state in ("SUCCESS", "50", "SUCCEEDED"):
        page = deviceops.document("devices", OPERATION["id"], "--state", state)
        assert [found["device_id"] for found in page["results"]] == [devices[1]]
        assert page["count"] == 1
