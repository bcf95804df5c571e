"""Timeouts and abort thresholds as people see them: the commands, and the HTTP API."""

import json
import re
import sqlite3
from contextlib import closing
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.elapsing import elapse_at
from tests.support.seed import OPERATION as SEED_OPERATION
from tests.support.sending import ANNOUNCEMENT, DEVICES, OPERATIONS, announcement_body, report_body
from tests.support.serving import DEVICE_OPERATIONS, OF_OPERATION, PATH, announce, put, refused, serving
from tests.support.serving import DEVICES as SEED_DEVICES
from tests.support.serving import OPERATIONS as ALL_OPERATIONS

ONE, OTHER, THIRD = DEVICES
OPERATION = OPERATIONS[0]
NOTHING = {"timed_out": 0, "kinds": {}}
ABORT = {"failed_percent": 50, "min_settled": 2, "action": "cancel"}


def ingest(deviceops: Deviceops, *bodies: dict[str, Any]) -> None:
    """Process announcements and reports."""
    lines = [
        json.dumps(body if "state" in body else {"type": ANNOUNCEMENT, "body": body}) + "\n" for body in bodies
    ]
    deviceops.out("ingest", "-", lines="".join(lines))


def elapse(deviceops: Deviceops, seconds: int) -> None:
    """Let time pass for the command's database."""
    elapse_at(deviceops.settings["database_url"], seconds)


def states(deviceops: Deviceops) -> list[str]:
    """The states of the operation's devices, in their order."""
    page = deviceops.document("devices", str(OPERATION))
    return [found["state"] for found in sorted(page["results"], key=lambda found: str(found["device_id"]))]


def test_without_anything_to_do_expire_says_so(deviceops: Deviceops) -> None:
    ingest(deviceops, announcement_body(OPERATION, [ONE]))

    for arguments in (["expire"], ["expire", "--dry-run"]):
        assert re.search(r"^(would time out|timed out) +0$", deviceops.out(*arguments), re.MULTILINE)
    assert deviceops.document("expire") == {**NOTHING, "cancelled": 0, "aborted": 0}
    assert deviceops.document("expire", "--dry-run") == {**NOTHING, "operations": 0}


def test_expire_times_out_what_is_over_and_a_dry_run_only_counts_it(deviceops: Deviceops) -> None:
    body = announcement_body(OPERATION, DEVICES, timeouts={"pending": 60, "step": 30})
    ingest(deviceops, body, report_body(OPERATION, ONE, "PROCESSING"), report_body(OPERATION, THIRD, "SUCCESS"))
    elapse(deviceops, 61)

    counted = {"timed_out": 2, "kinds": {"pending": 1, "step": 1}}
    assert deviceops.document("expire", "--dry-run") == {**counted, "operations": 1}
    assert "pending" in deviceops.out("expire", "--dry-run")
    assert states(deviceops) == ["PROCESSING", "CREATED", "SUCCESS"]

    assert deviceops.document("expire") == {**counted, "cancelled": 0, "aborted": 0}
    assert states(deviceops) == ["TIMEOUT", "TIMEOUT", "SUCCESS"]
    assert deviceops.document("expire")["timed_out"] == 0
    assert deviceops.document("status", str(OPERATION))["operation_activity"][-1]["operation_state"] == "COMPLETED"
    assert deviceops.document("recount")["drifted"] == []


def test_expire_cancels_what_an_abort_has_left(deviceops: Deviceops) -> None:
    body = announcement_body(OPERATION, DEVICES, abort=ABORT)
    ingest(
        deviceops,
        body,
        report_body(OPERATION, ONE, "SUCCESS"),
        report_body(OPERATION, OTHER, "FAILURE", code="E7"),
    )

    assert deviceops.document("expire") == {**NOTHING, "cancelled": 1, "aborted": 0}

    assert states(deviceops) == ["SUCCESS", "FAILURE", "CANCELLED"]
    shown = deviceops.out("device", str(OPERATION), str(THIRD))
    assert "aborted: 1 of 2 settled device operations failed (50%)" in shown
    assert deviceops.document("expire")["cancelled"] == 0


def test_a_timeout_can_cross_a_threshold(deviceops: Deviceops) -> None:
    body = announcement_body(OPERATION, DEVICES, timeouts={"step": 60}, abort=ABORT)
    ingest(deviceops, body, *(report_body(OPERATION, device, "PROCESSING") for device in (ONE, OTHER)))
    elapse(deviceops, 61)
    assert deviceops.document("expire") == {"timed_out": 2, "kinds": {"step": 2}, "cancelled": 1, "aborted": 1}
    assert states(deviceops) == ["TIMEOUT", "TIMEOUT", "CANCELLED"]


def test_expire_applies_settings_that_have_changed(deviceops: Deviceops) -> None:
    ingest(deviceops, announcement_body(OPERATION, [ONE]))
    elapse(deviceops, 61)
    with_timeouts = deviceops.with_settings(timeouts='{"CONVERGE": {"pending": 60}}')

    assert deviceops.document("expire")["timed_out"] == 0
    assert with_timeouts.document("expire") == {
        "timed_out": 1,
        "kinds": {"pending": 1},
        "cancelled": 0,
        "aborted": 0,
    }


def test_expire_goes_on_with_the_others_and_fails_where_the_database_refuses_one(
    deviceops_on_sqlite: Deviceops,
) -> None:
    deviceops = deviceops_on_sqlite
    ingest(deviceops, announcement_body(OPERATION, DEVICES, timeouts={"total": 60}))
    elapse(deviceops, 61)
    with closing(sqlite3.connect(make_url(deviceops.settings["database_url"]).database or "")) as database:
        database.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON device_operations FOR EACH ROW "
            f"WHEN old.device_id = '{OTHER.hex}' BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    done = deviceops("expire", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["timed_out"] == 2
    assert "the database refuses to change 1 device operation: see the log" in done.stderr
    assert states(deviceops) == ["TIMEOUT", "CREATED", "TIMEOUT"]


def test_expire_without_a_database_fails(deviceops_on_sqlite: Deviceops) -> None:
    for arguments in (["expire"], ["expire", "--dry-run"]):
        done = deviceops_on_sqlite.with_settings(database_url="sqlite:///no/where/x.db")(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert done.stderr.splitlines()[-1].startswith("deviceops: database no/where/x.db: ")


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("timeouts", '{"CONVERGE": ', "DEVICEOPS_TIMEOUTS: Invalid JSON"),
        ("timeouts", "[]", "DEVICEOPS_TIMEOUTS: Input should be an object"),
        ("timeouts", '{"CONVERGE": 60}', "DEVICEOPS_TIMEOUTS CONVERGE: Input should be an object"),
        ("timeouts", '{"CONVERGE": null}', "DEVICEOPS_TIMEOUTS CONVERGE: Input should be an object"),
        ("timeouts", '{"CONVERGE": {"pendign": 60}}', "DEVICEOPS_TIMEOUTS CONVERGE pendign: "),
        ("timeouts", '{"*": {"pending": -1}}', "DEVICEOPS_TIMEOUTS * pending: "),
        ("timeouts", '{"*": {"step": 0}}', "DEVICEOPS_TIMEOUTS * step: "),
        ("timeouts", '{"*": {"step": "60"}}', "DEVICEOPS_TIMEOUTS * step: "),
        ("timeouts", '{"*": {"total": 1e999}}', "DEVICEOPS_TIMEOUTS * total: "),
        ("timeouts", '{"*": {"total": 1e9}}', "DEVICEOPS_TIMEOUTS * total: "),
        ("timeouts", '{"*": {"deadline": "2026-01-31T08:00:00Z"}}', "DEVICEOPS_TIMEOUTS * deadline: "),
        ("timeouts", '{"": {"total": 1}}', "DEVICEOPS_TIMEOUTS "),
        ("timeout_grace", "-1", "DEVICEOPS_TIMEOUT_GRACE: "),
        ("timeout_grace", "nan", "DEVICEOPS_TIMEOUT_GRACE: "),
        ("schedule_ends", "perhaps", "DEVICEOPS_SCHEDULE_ENDS: "),
    ],
)
def test_a_wrong_setting_of_timeouts_is_refused_with_its_place(
    deviceops_on_sqlite: Deviceops, name: str, value: str, place: str
) -> None:
    done = deviceops_on_sqlite.with_settings(**{name: value})("expire")

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert done.stderr.startswith(f"deviceops: {place}"), done.stderr


def lines_of(shown: str) -> dict[str, str]:
    """The lines of facts that a command shows, by their names."""
    facts = re.findall(r"^(\S+(?: \S+)*)  +(\S.*?) *$", shown, re.MULTILINE)
    return dict(facts)


def test_status_says_what_holds_when_the_next_one_is_due_and_what_is_over(deviceops: Deviceops) -> None:
    timeouts = {"pending": 90, "in_progress": 7_200, "total": 86_400}
    body = announcement_body(OPERATION, DEVICES, timeouts=timeouts, deadline="2999-12-31T23:59:59Z", abort=ABORT)
    ingest(deviceops, body, report_body(OPERATION, ONE, "TIMEOUT"))

    shown = lines_of(deviceops.out("status", str(OPERATION)))

    words = "pending 90 s, in_progress 2 h, total 1 d, deadline 2999-12-31 23:59:59Z"
    assert shown["timeouts"] == words
    assert shown["next timeout"].endswith("in a minute")
    assert shown["timed out"] == "by a report 1"
    assert shown["abort threshold"] == "50% of at least 2 settled: cancel; not crossed"

    elapse(deviceops, 91)
    assert lines_of(deviceops.out("status", str(OPERATION)))["next timeout"].endswith("Z, due")
    deviceops.out("expire")
    shown = lines_of(deviceops.out("status", str(OPERATION)))
    assert "next timeout" not in shown
    assert shown["timed out"] == "pending 2, by a report 1"
    crossed = r"50% of at least 2 settled: cancel; crossed \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ, 3 of 3 had failed"
    assert re.fullmatch(crossed, shown["abort threshold"])
    assert shown[
        "reason"
    ] == "aborted: 3 of 3 settled device operations failed (100%); the threshold is 50% of " + (
        "at least 2 (cancel)"
    )


def test_status_and_device_say_nothing_of_timeouts_where_there_are_none(deviceops: Deviceops) -> None:
    ingest(deviceops, announcement_body(OPERATION, [ONE]))
    shown = lines_of(deviceops.out("status", str(OPERATION)))
    assert not shown.keys() & {"timeouts", "next timeout", "timed out", "abort threshold"}
    assert "times out" not in deviceops.out("device", str(OPERATION), str(ONE))


def test_device_says_until_when_and_by_which_timeout(deviceops: Deviceops) -> None:
    body = announcement_body(OPERATION, [ONE, OTHER], timeouts={"pending": 60, "step": 600})
    ingest(deviceops, body, report_body(OPERATION, OTHER, "DISPATCHED"))
    for device, kind in ((ONE, "pending"), (OTHER, "step")):
        times_out = lines_of(deviceops.out("device", str(OPERATION), str(device)))["times out"]
        assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\dZ \({kind}\)", times_out)
    elapse(deviceops, 601)
    deviceops.out("expire")
    shown = deviceops.out("device", str(OPERATION), str(ONE))
    assert "times out" not in shown
    assert "deviceops" in shown
    assert "timed out: not dispatched within 1 min of its registration" in shown


def test_device_shows_the_code_of_each_report(deviceops_on_sqlite: Deviceops) -> None:
    ingest(
        deviceops_on_sqlite,
        announcement_body(OPERATION, [ONE]),
        report_body(OPERATION, ONE, "FAILURE", code="DISK_FULL", report_id="1"),
        report_body(OPERATION, ONE, "PROCESSING", code="not a code", report_id="2"),
    )
    shown = deviceops_on_sqlite.out("device", str(OPERATION), str(ONE))
    assert re.search("FAILURE +applied +drift-service +DISK_FULL", shown)
    assert "code 'not a code'" in shown


SIMULATED = ("--operations", "2", "--devices", "50", "--seed", "7", "--disorder", "0.2", "--duplicates", "0.1")
BEFORE_SILENCE = "fd986ee0cf596744af373746b99e91d8de4f9252d6495f70fe1503c91ab2997f"
"""SHA-256 of what `simulate` printed before devices could be silent."""


def test_simulated_devices_fall_silent_where_that_is_asked_for_and_nothing_else_changes(
    deviceops_on_sqlite: Deviceops,
) -> None:
    spoilt = ("--conflicts", "0.1", "--malformed", "0.02", "--early", "0.1")
    printed = deviceops_on_sqlite.out("simulate", *SIMULATED, *spoilt)
    assert sha256(printed.encode()).hexdigest() == BEFORE_SILENCE
    assert deviceops_on_sqlite.out("simulate", *SIMULATED, *spoilt, "--silent", "0") == printed

    some, again = (deviceops_on_sqlite.out("simulate", *SIMULATED, "--silent", "0.3") for _ in range(2))
    assert some == again
    deviceops_on_sqlite.out("ingest", "-", lines=some)
    open_ones = deviceops_on_sqlite.document("status")
    assert {operation["operation_activity"][-1]["operation_state"] for operation in open_ones} == {"DISPATCHING"}
    assert deviceops_on_sqlite("simulate", "--silent", "1.5").returncode == 2


def test_the_demo_ends_though_devices_fall_silent(deviceops_on_sqlite: Deviceops) -> None:
    without_broker = deviceops_on_sqlite.with_settings(amqp_url="amqp://guest:guest@127.0.0.1:1/")
    shown = without_broker.out("demo", "--devices", "60")
    silent = re.search(r"(\d+) devices? fell silent: the operation is DISPATCHING. Timeouts end it:", shown)
    assert silent is not None
    assert re.search(r" COMPLETED( +\d+){2,3} +60$", shown.partition("Timeouts end it:")[2], re.MULTILINE)
    there = Deviceops(deviceops_on_sqlite.directory, {"database_url": "sqlite:///deviceops-demo.db"})
    [operation] = there.document("status")
    assert lines_of(there.out("status", operation["id"]))["timed out"].endswith(f"total {silent[1]}")


def test_timeouts_a_deadline_and_a_threshold_are_announced_over_http_too(
    api: httpx.Client, deviceops_at_server: Deviceops
) -> None:
    deviceops = deviceops_at_server
    more = {
        "timeouts": {"pending": 60},
        "deadline": "2999-01-01T00:00:00Z",
        "abort": {**ABORT, "action": "notify"},
    }
    announced = announce(api, SEED_DEVICES[:3], **more)
    assert announced.status_code == 201
    assert announced.json()["content"].keys() == SEED_OPERATION.keys()
    put(api, "SUCCESS")
    elapse(deviceops, 61)

    shown = lines_of(deviceops.out("status", SEED_OPERATION["id"]))
    assert shown["timeouts"] == "pending 1 min, deadline 2998-12-31 23:58:59Z", "61 s less"
    assert deviceops.document("expire") == {
        "timed_out": 2,
        "kinds": {"pending": 2},
        "cancelled": 0,
        "aborted": 1,
    }
    timed_out = api.get(DEVICE_OPERATIONS, params={"state": "TIMEOUT"}).json()["content"]
    assert timed_out["count"] == 2
    assert api.get(OF_OPERATION).json()["content"]["reason"].startswith("abort threshold crossed: 2 of 3")
    assert put(api, "SUCCESS", f"{DEVICE_OPERATIONS}{SEED_DEVICES[1]}/").headers["X-Verdict"] == "applied"


@pytest.mark.parametrize(
    ("where", "fields"),
    [
        ("timeouts.pending", {"timeouts": {"pending": -1}}),
        ("timeouts.in_progress", {"timeouts": {"in_progress": 0}}),
        ("timeouts.step", {"timeouts": {"step": "60"}}),
        ("timeouts.step", {"timeouts": {"step": True}}),
        ("timeouts.total", {"timeouts": {"total": 10**9}}),
        ("timeouts.soon", {"timeouts": {"soon": 1}}),
        ("deadline", {"deadline": "tomorrow"}),
        ("abort.failed_percent", {"abort": {**ABORT, "failed_percent": 0}}),
        ("abort.failed_percent", {"abort": {**ABORT, "failed_percent": 101}}),
        ("abort.min_settled", {"abort": {**ABORT, "min_settled": 0}}),
        ("abort.action", {"abort": {**ABORT, "action": "stop"}}),
    ],
)
def test_what_cannot_hold_is_refused_over_http_with_the_field(
    api: httpx.Client, where: str, fields: dict[str, object]
) -> None:
    refusal = api.post(ALL_OPERATIONS, json={**SEED_OPERATION, "device_ids": SEED_DEVICES[:1], **fields})
    assert [fault["where"] for fault in refused(refusal, 400)["faults"]] == [where]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_is_refused_over_http_too(api: httpx.Client, number: str) -> None:
    body = json.dumps({**SEED_OPERATION, "timeouts": {"total": 12345}}).replace("12345", number)
    refused(api.post(ALL_OPERATIONS, content=body, headers={"Content-Type": "application/json"}), 400)


def test_a_report_over_http_has_a_code(api: httpx.Client) -> None:
    announce(api, SEED_DEVICES[:1])
    put(api, "PROCESSING", code="not a code")
    put(api, "FAILURE", code="DISK_FULL")
    found = api.get(f"{PATH}reports/").json()["content"]["results"]
    assert [(report["state"], report["code"]) for report in found] == [
        ("CREATED", None),
        ("PROCESSING", None),
        ("FAILURE", "DISK_FULL"),
    ]
    assert "not a code" in found[1]["note"]


def crossings(log: str) -> list[str]:
    """The operations whose threshold was crossed, as logged."""
    lines = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [line["operation_id"] for line in lines if line["event"] == "abort threshold crossed"]


def test_an_abort_that_a_command_causes_is_logged(deviceops_on_sqlite: Deviceops) -> None:
    deviceops, abort = deviceops_on_sqlite, {**ABORT, "min_settled": 1}
    for operation in OPERATIONS:
        ingest(deviceops, announcement_body(operation, [ONE, OTHER], timeouts={"total": 60}, abort=abort))
    failure = json.dumps(report_body(OPERATION, ONE, "FAILURE"))
    assert crossings(deviceops("ingest", "-", lines=failure).stderr) == [str(OPERATION)]
    elapse(deviceops, 61)
    assert crossings(deviceops("expire").stderr) == [str(OPERATIONS[1])]


def test_an_abort_that_a_replay_causes_is_logged_and_counted(deviceops_on_sqlite: Deviceops) -> None:
    deviceops = deviceops_on_sqlite
    for operation in OPERATIONS:
        body = announcement_body(operation, [ONE, OTHER], abort={**ABORT, "min_settled": 1})
        failure = report_body(operation, ONE, "FAILURE", operation_type="REBOOT")
        ingest(
            deviceops, body, failure, {**body, "operation_type": "REBOOT"}
        )  # it was announced with a wrong type
    one, other = (found["id"] for found in deviceops.document("dead-letters", "list"))
    assert crossings(deviceops("dead-letters", "replay", str(one)).stderr) == [str(OPERATION)]
    with serving(deviceops) as server, server.client() as client:
        client.post("/v0/dead-letters/replay/", json={"ids": [other]}).raise_for_status()
        assert "deviceops_aborts_total 1.0" in server.probe("metrics").text.splitlines()


def test_an_abort_that_a_call_causes_is_logged_and_counted(deviceops_on_sqlite: Deviceops) -> None:
    with serving(deviceops_on_sqlite) as server, server.client() as client:
        assert "deviceops_aborts_total 0.0" in server.probe("metrics").text.splitlines()
        announce(client, SEED_DEVICES[:2], abort={**ABORT, "min_settled": 1})
        put(client, "FAILURE")
        assert "deviceops_aborts_total 1.0" in server.probe("metrics").text.splitlines()
        server.stop()
        [line] = [line for line in server.log if line["event"] == "abort threshold crossed"]
    assert (line["level"], line["operation_id"]) == ("warning", SEED_OPERATION["id"])
    assert line["detail"].startswith("aborted: 1 of 1 settled device operations failed")
