"""The command that makes an operation of what failed of another one: once, after a question, or an error."""

import json
from uuid import uuid4

from tests.support.command import Deviceops
from tests.support.terminal import answered
from worker.model.causes import cause_of_reason

SOME_ID = "00000000-0000-4000-8000-000000000000"
NEVER = "00000000-0000-4000-8000-0000000000ff"
"""The id of an operation that is not created."""
FAILING = {
    SOME_ID[:-1] + digit: state
    for digit, state in zip("0123", ("FAILURE", "FAILURE", "TIMEOUT", "SUCCESS"), strict=True)
}


def fail(deviceops: Deviceops) -> None:
    """Have an operation with two failures, a timeout and a success."""
    report = {"operation_id": SOME_ID, "operation_type": "CONVERGE", "service_id": "drift-service"}
    lines = [
        json.dumps({**report, "device_id": device, "state": state})
        for device, last in FAILING.items()
        for state in ("CREATED", last)
    ]
    deviceops.out("ingest", "-", lines="\n".join(lines))


def test_retry_makes_an_operation_of_what_failed_once(deviceops: Deviceops) -> None:
    fail(deviceops)
    new = str(uuid4())
    first = deviceops.document("retry", SOME_ID[:6], "--as", new)
    assert first == {
        "operation_id": new,
        "retry_of": SOME_ID,
        "is_new": True,
        "device_operations": 3,
        "state": "RESOLVED",
    }
    assert deviceops.document("retry", SOME_ID, "--as", new) == {**first, "is_new": False}
    created = {each["device_id"]: each["state"] for each in deviceops.document("devices", new)["results"]}
    assert created == {device: "CREATED" for device, state in FAILING.items() if state != "SUCCESS"}
    assert f"retry of           {SOME_ID}" in deviceops.out("status", new)
    operation = deviceops.document("status", new)
    assert operation["operation"] == "CONVERGE"
    assert operation["operation_device_query"] == {"retry_of": SOME_ID, "state": ["FAILURE", "TIMEOUT"]}
    other = str(uuid4())
    said = deviceops.out("retry", SOME_ID, "--as", other, "--state", "timed_out", "--state", "CANCELLED")
    assert said == (
        f"operation {other} created for 1 device operation of operation {SOME_ID}; it is RESOLVED\n"
        "Your dispatcher has to take it up: its timeouts run from now on.\n"
    )
    again = deviceops.out("retry", SOME_ID, "--as", other, "--state", "70,80")
    assert again.startswith(f"operation {other} was there already, with 1 device operation of")
    assert deviceops.document("recount")["drifted"] == []


def test_what_retry_cannot_do_is_an_error_and_changes_nothing(deviceops_on_sqlite: Deviceops) -> None:
    fail(deviceops_on_sqlite)
    new = str(uuid4())
    deviceops_on_sqlite.out("retry", SOME_ID, "--as", new)
    cases: list[tuple[int, str, *tuple[str, ...]]] = [
        (1, f"operation {new} exists, and is not the retry", SOME_ID, "--as", new, "--state", "FAILURE"),
        (1, "has no device operation in FAILURE or TIMEOUT with code 'X'", SOME_ID, "--as", NEVER, "--code", "X"),
        (1, f"operation {NEVER[:-1]}1 is unknown", NEVER[:-1] + "1", "--as", NEVER),
        (2, "is the operation itself", SOME_ID[:8], "--as", SOME_ID),
        (2, "SUCCESS cannot be retried, only FAILURE", SOME_ID, "--as", NEVER, "--state", "SUCCESS"),
        (2, "is not a code", SOME_ID, "--as", NEVER, "--code", cause_of_reason("")),
        (2, "'disk full' is not a code", SOME_ID, "--as", NEVER, "--code", "disk full"),
        (2, "Missing option '--as'", SOME_ID),
    ]
    for code, said, *arguments in cases:
        done = deviceops_on_sqlite("retry", *arguments)
        assert (done.returncode, said in done.stderr, done.stdout) == (code, True, ""), done.stderr
    assert {each["id"] for each in deviceops_on_sqlite.document("status")} == {SOME_ID, new}


def test_retry_asks_on_a_terminal_and_names_the_number(deviceops_on_sqlite: Deviceops) -> None:
    fail(deviceops_on_sqlite)
    code, said = answered(deviceops_on_sqlite, "n", "retry", SOME_ID[:6], "--as", NEVER)
    assert code == 1
    question = f"Retry 3 device operations in FAILURE or TIMEOUT of operation {SOME_ID} as operation {NEVER}?"
    assert question in said
    assert "nothing was created" in said
    assert len(deviceops_on_sqlite.document("status")) == 1
    assert answered(deviceops_on_sqlite, "y", "retry", SOME_ID[:6], "--as", NEVER)[0] == 0
    code, said = answered(deviceops_on_sqlite, "n", "retry", SOME_ID, "--as", NEVER)
    assert (code, "Retry 3" in said, "was there already" in said) == (0, False, True)
