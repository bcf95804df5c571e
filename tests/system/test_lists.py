"""Lists over HTTP and on the command line, filtered: by what reports said, alone and together."""

import json
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from tests.support.command import Deviceops
from tests.support.seed import DEVICE_ID, OPERATION
from tests.support.serving import DEVICE_OPERATIONS, DEVICES, OPERATIONS, announce, put, refused

E1 = {"state": "FAILURE", "service_id": "probe-service", "code": "E1", "reason": "told by its code"}
REPORTS: list[dict[str, str]] = [
    {"state": "SUCCESS", "service_id": "drift-service"},
    {"state": "SUCCESS", "service_id": "probe-service", "code": "fine"},
    E1,
    {**E1, "service_id": "drift-service", "state": "TIMEOUT"},
    {"state": "FAILURE", "service_id": "drift-service", "reason": "no route to 10.0.0.1"},
    {"state": "FAILURE", "service_id": "probe-service", "reason": "no route to 10.0.0.2"},
    {"state": "FAILURE", "service_id": "drift-service", "reason": "disk full"},
]
FOUND: dict[str, tuple[dict[str, str | list[str]], str]] = {
    "states": ({"state": "FAILURE,TIMEOUT"}, "23456"),
    "states as parameters, in any spelling": ({"state": ["failed", "80", "SUCCEEDED,created"]}, "0123456789"),
    "service": ({"service_id": "probe-service"}, "125"),
    "code": ({"code": "E1"}, "23"),
    "reason": ({"reason": "no route to 10.11.12.13"}, "45"),
    "reason, masked": ({"reason": "no route to <address>"}, "45"),
    "reason of some that have a code": ({"reason": E1["reason"]}, ""),
    "no reason": ({"reason": ""}, ""),
    "service and code": ({"service_id": "drift-service", "code": "E1"}, "3"),
    "service, state and reason": (
        {"service_id": "drift-service", "state": "60", "reason": "no route to ::1"},
        "4",
    ),
    "code and reason": ({"code": "E1", "reason": "disk full"}, ""),
    "long ago": ({"updated_before": "2020-01-01T00:00:00Z"}, ""),
    "since long": ({"updated_after": "2020-01-01T00:00:00+01:00", "state": "FAILURE"}, "2456"),
}
ON_THE_COMMAND_LINE = (
    "states",
    "states as parameters, in any spelling",
    "reason",
    "service and code",
    "since long",
)


@pytest.fixture
def reported(api: httpx.Client) -> httpx.Client:
    """A client of a server with the reports above, of the first devices of ten."""
    announce(api, DEVICES)
    for device, report in zip(DEVICES, REPORTS, strict=False):
        body = {**report, "operation_type": OPERATION["operation"]}
        assert api.put(f"{DEVICE_OPERATIONS}{device}/", json=body).is_success
    return api


def test_device_operations_are_found_by_what_their_reports_say(
    reported: httpx.Client, deviceops_at_server: Deviceops
) -> None:
    options = {"service_id": "service"}
    for name, (parameters, expected) in FOUND.items():
        page = reported.get(DEVICE_OPERATIONS, params=parameters).json()["content"]
        devices = [each["device_id"] for each in page["results"]]
        assert sorted(devices) == [device for device in DEVICES if device[-1] in expected], name
        assert page["count"] == len(expected)
        if name not in ON_THE_COMMAND_LINE:
            continue
        words = []
        for key, value in parameters.items():
            option = f"--{options.get(key, key).replace('_', '-')}"
            words += [word for each in ([value] if isinstance(value, str) else value) for word in (option, each)]
        listed = deviceops_at_server.document("devices", OPERATION["id"], *words)
        assert [each["device_id"] for each in listed["results"]] == devices, name


def test_a_line_of_a_narrow_table_has_the_state_and_the_code_however_long_a_reason_is(
    deviceops_on_sqlite: Deviceops,
) -> None:
    reports = [{"reason": 500 * "long\n"}, {"code": "DISK_FULL", "reason": "no room"}]
    lines = [
        {"operation_id": OPERATION["id"], "device_id": device, "service_id": "s", "state": state, **report}
        for device, report in zip(DEVICES, reports, strict=False)
        for state in ("CREATED", "FAILURE")
    ]
    deviceops_on_sqlite.out("ingest", "-", lines="\n".join(map(json.dumps, lines)))
    for width, code in ((80, "DISK_FULL"), (120, "DISK_FULL: no room")):
        of_width = deviceops_on_sqlite.with_environment(COLUMNS=str(width))
        heading, first, second, _ = of_width.out("devices", OPERATION["id"]).splitlines()
        assert heading.split() == ["device", "state", "updated", "code/reason"]
        assert (first.split()[:2], second.split()[:2]) == ([DEVICES[0], "FAILURE"], [DEVICES[1], "FAILURE"])
        assert "long long" in first
        assert code in second
        assert max(map(len, (heading, first, second))) <= width


def test_pages_of_a_filter_are_sorted_by_their_updates_and_keep_it(
    reported: httpx.Client, deviceops_at_server: Deviceops
) -> None:
    wanted = {"state": "FAILURE,TIMEOUT", "service_id": "drift-service", "limit": "2"}
    first = reported.get(DEVICE_OPERATIONS, params=wanted).json()["content"]
    assert [each["device_id"] for each in first["results"]] == [DEVICES[3], DEVICES[4]]
    assert parse_qs(urlsplit(first["next"]).query) == {
        name: [value] for name, value in {**wanted, "offset": "2"}.items()
    }
    second = reported.get(first["next"]).json()["content"]
    assert [each["device_id"] for each in second["results"]] == [DEVICES[6]]
    assert (first["count"], second["next"]) == (3, None)
    by_cursor = reported.get(DEVICE_OPERATIONS, params={**wanted, "cursor": ""}).json()["content"]
    assert reported.get(by_cursor["next"]).json()["content"]["results"] == second["results"]
    latest = reported.get(DEVICE_OPERATIONS, params={**wanted, "ordering": "-updated_at"}).json()["content"]
    assert latest["results"] == [*second["results"], first["results"][1]]

    states = ("--state", "FAILURE", "--state", "80", "--service", "drift-service", "--updated-after", "1d")
    page = deviceops_at_server.document("devices", OPERATION["id"], *states, "--limit", "2")
    assert page["results"] == first["results"]
    assert reported.get(page["next"]).json()["content"]["results"] == second["results"]


def test_operations_are_found_by_their_states_type_and_time(api: httpx.Client) -> None:
    ids = [str(uuid4()) for _ in range(4)]
    for number, id_ in enumerate(ids):
        more = {"operation_type": "REBOOT"} if number == 3 else {}
        announce(api, [DEVICE_ID], id=id_, created_at=f"2026-01-0{number + 1}T00:00:00Z", **more)
    put(api, "SUCCESS", f"{OPERATIONS}{ids[0]}/devices/{DEVICE_ID}/")
    put(api, "DISPATCHED", f"{OPERATIONS}{ids[1]}/devices/{DEVICE_ID}/")
    for path in (OPERATIONS, f"/v0/devices/{DEVICE_ID}/operations/"):
        for parameters, expected in (
            ({"state": "COMPLETED,DISPATCHING"}, "10"),
            ({"state": ["COMPLETED", "RESOLVED"]}, "320"),
            ({"operation_type": "CONVERGE"}, "210"),
            ({"operation_type": ""}, ""),
            ({"created_after": "2026-01-02T00:00:00Z"}, "321"),
            ({"created_before": "2026-01-03T00:00:00Z", "created_after": "2026-01-02T00:00:00Z"}, "1"),
            (
                {"operation_type": "CONVERGE", "created_after": "2026-01-02T00:00:00Z", "ordering": "created_at"},
                "12",
            ),
        ):
            page = api.get(path, params=parameters).json()
            assert [each["id"] for each in page["results"]] == [ids[int(digit)] for digit in expected], parameters
            assert page["count"] == len(expected)


def test_a_filter_that_cannot_be_read_is_named(api: httpx.Client) -> None:
    announce(api, [DEVICE_ID])
    for path, parameters, where, problem in (
        (DEVICE_OPERATIONS, {"state": "FAILURE,SUCESS"}, "state", "did you mean SUCCESS"),
        (DEVICE_OPERATIONS, {"state": "FAILURE,"}, "state", "''"),
        (DEVICE_OPERATIONS, {"state": ["FAILURE", "x"]}, "state", "'x'"),
        (DEVICE_OPERATIONS, {"service_id": ""}, "service_id", "at least 1"),
        (DEVICE_OPERATIONS, {"code": "E 1"}, "code", "'E 1' is not a code"),
        (DEVICE_OPERATIONS, {"updated_after": "yesterday"}, "updated_after", "RFC 3339"),
        (DEVICE_OPERATIONS, {"updated_before": "2026-01-01T00:00:00"}, "updated_before", "timezone"),
        (DEVICE_OPERATIONS, {"operation_type": "CONVERGE"}, "operation_type", "is not a parameter"),
        (DEVICE_OPERATIONS, {"code": ["E1", "E2"]}, "code", "more than once"),
        (OPERATIONS, {"limit": ["1", "1"], "state": ["COMPLETED", "FAILED"]}, "limit", "more than once"),
        (OPERATIONS, {"state": "COMPLETED,50"}, "state", "'50'"),
        (OPERATIONS, {"created_after": "5"}, "created_after", "RFC 3339"),
    ):
        [fault] = refused(api.get(path, params=parameters), 400)["faults"]
        assert fault["where"] == where
        assert problem in fault["problem"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--state", "SUCCESS", "--state", "FINE"], "'FINE' is not a state"),
        (["--code", "E 1"], "'E 1' is not a code"),
        (["--updated-after", "yesterday"], "'yesterday' is not a time"),
    ],
)
def test_a_filter_that_cannot_be_read_is_a_usage_error(
    deviceops_on_sqlite: Deviceops, words: list[str], named: str
) -> None:
    done = deviceops_on_sqlite("devices", OPERATION["id"], *words)
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
