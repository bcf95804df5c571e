"""The command line as its users have it: what it prints, where, and how it exits."""

import json
import os
import re
import subprocess
from dataclasses import replace
from importlib.metadata import version

import pytest

from tests.support.command import Deviceops
from tests.support.databases import execute
from tests.support.terminal import answered, on_a_terminal

FLEET = ("--operations", "2", "--devices", "50", "--disorder", "0.2", "--duplicates", "0.1", "--early", "0.1")


SPOILT = ("--conflicts", "0.1", "--malformed", "0.02")


SOME_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def fleet(deviceops_on_sqlite: Deviceops) -> str:
    """A fleet's life with everything that goes wrong."""
    return deviceops_on_sqlite.out("simulate", *FLEET, *SPOILT, "--seed", "7")


def test_ingest_accounts_for_every_line_and_the_recount_agrees(deviceops: Deviceops, fleet: str) -> None:
    summary = deviceops.document("ingest", "-", lines=fleet)

    assert summary["received"] == len(fleet.splitlines())
    outcomes = ("applied", "late", "repeated", "duplicate", "announced")
    assert summary["received"] + summary["released"] == sum(summary[name] for name in outcomes) + sum(
        summary["dead_lettered"].values()
    )
    assert all(summary[name] for name in ("applied", "late", "duplicate", "released"))
    assert summary["announced"] == 2
    assert deviceops.document("recount") == {"operations": 2, "drifted": []}
    assert len(deviceops.document("status")) == 2


def test_ingesting_the_same_again_changes_nothing(deviceops: Deviceops, fleet: str) -> None:
    deviceops.out("ingest", "-", lines=fleet)
    before = deviceops.document("status"), deviceops.document("dead-letters", "list", "--status", "all")

    again = deviceops.document("ingest", "-", lines=fleet)

    assert again["received"] == again["duplicate"] + again["announced"]
    after = deviceops.document("status"), deviceops.document("dead-letters", "list", "--status", "all")
    for operation in (*before[0], *after[0]):
        del operation["updated_at"]
    assert after == before


def test_dead_letters_are_listed_by_status_reason_and_operation_and_shown_whole(
    deviceops: Deviceops, fleet: str
) -> None:
    summary = deviceops.document("ingest", "-", lines=fleet)

    open_ones = deviceops.document("dead-letters", "list")
    conflicts = deviceops.document("dead-letters", "list", "--reason", "conflict")
    assert {letter["reason"] for letter in open_ones} == {"conflict", "malformed"}
    assert len(conflicts) == summary["dead_lettered"]["conflict"]
    keys = ("id", "reason", "detail", "status", "received_at", "message_id", "type")
    names = ("operation_id", "device_id", "service_id", "attempts")
    assert tuple(conflicts[0]) == keys + names
    assert summary["dead_lettered"]["unknown_device_operation"] == summary["released"]
    resolved = deviceops.document("dead-letters", "list", "--status", "resolved")
    assert {letter["reason"] for letter in resolved} == {"unknown_device_operation"}
    assert 0 < len(resolved) <= summary["released"]  # one that then conflicts stays open
    of_one = deviceops.document("dead-letters", "list", "--operation", conflicts[0]["operation_id"])
    assert conflicts[0] in of_one
    assert len(of_one) < len(open_ones)
    shown = deviceops.out("dead-letters", "show", str(conflicts[0]["id"]))
    assert conflicts[0]["detail"] in shown
    assert conflicts[0]["device_id"] in shown


def test_device_shows_every_report_and_its_document_the_states_reached(
    deviceops: Deviceops,
) -> None:
    report = {"operation_id": SOME_ID, "device_id": SOME_ID, "service_id": "drift-service"}
    states = ("CREATED", "SUCCESS", "PROCESSING")
    deviceops.out("ingest", "-", lines="".join(json.dumps({**report, "state": s}) + "\n" for s in states))

    shown = deviceops.out("device", SOME_ID, SOME_ID)
    document = deviceops.document("device", SOME_ID, SOME_ID)

    assert "PROCESSING" in shown
    assert "late" in shown
    reached = [entry["device_operation_state"] for entry in document["device_operation_activity"]]
    assert reached == ["CREATED", "PROCESSING", "SUCCESS"]


def test_device_shows_reports_by_pages(deviceops: Deviceops) -> None:
    report = {"operation_id": SOME_ID, "device_id": SOME_ID, "service_id": "drift-service", "state": "CREATED"}
    times = [f"2026-01-31T08:00:0{second}Z" for second in range(5)]
    lines = [json.dumps({**report, "report_id": time, "occurred_at": time}) for time in times]
    deviceops.out("ingest", "-", lines="\n".join(lines))

    shown = deviceops.out("device", SOME_ID, SOME_ID, "--limit", "2", "--offset", "1")

    assert [time[11:19] in shown for time in times] == [False, True, True, False, False]
    assert "2 to 3 of 5" in shown


def test_recount_finds_drift_exits_with_3_and_mends_it_when_told(deviceops: Deviceops, fleet: str) -> None:
    deviceops.out("ingest", "-", lines=fleet)
    operation = deviceops.document("status")[0]
    execute(deviceops.settings["database_url"], "UPDATE operations SET success_device_count = 0")

    found = deviceops("recount", "--json")
    drifted = json.loads(found.stdout)["drifted"]

    assert found.returncode == 3
    assert len(drifted) == 2
    assert {drift["stored"]["success_device_count"] for drift in drifted} == {0}
    mended = deviceops("recount", "--fix")
    assert mended.returncode == 0
    assert "2 drifted, now fixed" in mended.stdout
    assert deviceops.document("recount")["drifted"] == []
    stats = "operation_stats"
    assert deviceops.document("status", operation["id"])[stats] == operation[stats]


def test_status_of_an_operation_shows_its_counters(deviceops: Deviceops, fleet: str) -> None:
    deviceops.out("ingest", "-", lines=fleet)
    operation = deviceops.document("status")[0]

    shown = deviceops.out("status", operation["id"])

    assert "resolved_device_count    50" in shown
    counts = operation["operation_stats"]["device_operation_statuses_count"]
    failed = counts["failed_device_count"] + counts["dispatch_failed_count"]
    assert failed > 0
    row = next(line.split() for line in deviceops.out("status").splitlines() if operation["id"] in line)
    assert row[3:5] == [str(counts["success_device_count"]), str(failed)]
    assert row[-1] == "50"
    if cancelled := 50 - counts["success_device_count"] - failed:
        assert row[5] == str(cancelled)
        assert re.search(rf"^cancelled +{cancelled}$", shown, re.MULTILINE)


@pytest.mark.parametrize("columns", [80, 200])
def test_on_a_terminal_no_state_and_no_id_is_cut(deviceops_on_sqlite: Deviceops, columns: int, fleet: str) -> None:
    deviceops_on_sqlite.out("ingest", "-", lines=fleet)
    operation = deviceops_on_sqlite.document("status")[0]
    listed = on_a_terminal(deviceops_on_sqlite, columns, "status")
    assert any(line.startswith(operation["id"]) and operation["state"] in line.split() for line in listed)
    found = deviceops_on_sqlite.document("devices", operation["id"], "--limit", "100")["results"]
    shown = on_a_terminal(deviceops_on_sqlite, columns, "devices", operation["id"], "--limit", "100")
    assert {tuple(line.split()[:2]) for line in shown if line.count("-") >= 4} == {
        (each["device_id"], each["state"]) for each in found
    }
    assert [line for line in (*listed, *shown) if len(line) > columns] == []


def test_a_line_in_a_pipe_is_as_long_as_what_it_says(deviceops_on_sqlite: Deviceops) -> None:
    report = {"operation_id": SOME_ID, "device_id": SOME_ID, "service_id": "drift-service", "state": "CREATED"}
    reason = " ".join(["said"] * 60)
    deviceops_on_sqlite.out("ingest", "-", lines=json.dumps({**report, "reason": reason}))
    # Where tests run in several processes, these have the variable.
    piped = replace(deviceops_on_sqlite, environment={}, wrapper=("env", "-u", "COLUMNS"))
    for command in (("devices", SOME_ID), ("device", SOME_ID, SOME_ID)):
        lines = piped.out(*command).splitlines()
        assert any(reason in line for line in lines)
        assert [line for line in lines if line != line.rstrip() or len(line) > 500] == []


def test_a_misspelt_state_names_the_states_and_the_nearest_one(deviceops_on_sqlite: Deviceops) -> None:
    done = deviceops_on_sqlite("devices", SOME_ID, "--state", "SUCESS")
    assert done.returncode == 2
    assert "'SUCESS' is not a state: CREATED, INITIATED, " in done.stderr
    assert "Did you mean SUCCESS?" in done.stderr


def test_a_wrong_number_is_told_in_words(deviceops_on_sqlite: Deviceops) -> None:
    for command in (("dead-letters", "show", "abc"), ("devices", SOME_ID, "--limit", "abc")):
        done = deviceops_on_sqlite(*command)
        assert done.returncode == 2
        assert "'abc' is not an integer" in done.stderr


def test_the_help_of_an_argument_names_no_function(deviceops_on_sqlite: Deviceops) -> None:
    shown = deviceops_on_sqlite.out("announce", "--help")
    assert "<text>" in shown
    assert "<utf8>" not in shown


def test_first_guesses_are_commands(deviceops_on_sqlite: Deviceops, fleet: str) -> None:
    deviceops = deviceops_on_sqlite.with_settings(log_level="debug")
    deviceops.out("ingest", "-", lines=fleet)
    assert deviceops.out("--version").split() == ["deviceops", version("deviceops")]
    assert deviceops.document("operations") == json.loads(deviceops.out("status", "--format", "json"))
    replayed = deviceops.document("dead-letters", "retry", "--all")
    assert replayed == deviceops.document("dead-letters", "replay", "--all")
    hinted = deviceops("run", "--database-url", "sqlite:///x.db").stderr
    assert "set DEVICEOPS_DATABASE_URL" in hinted


def test_an_id_may_be_given_by_how_it_begins(deviceops: Deviceops, fleet: str) -> None:
    deviceops.out("ingest", "-", lines=fleet)
    operation = deviceops.document("status")[0]
    short = operation["id"][:6]
    assert deviceops.document("status", short) == operation
    [device] = deviceops.document("devices", short, "--limit", "1")["results"]
    assert deviceops.document("devices", short) == deviceops.document("devices", operation["id"])
    document = deviceops.document("device", short.upper(), device["device_id"][:9])
    assert document == deviceops.document("device", operation["id"], device["device_id"])
    sixteen = [f"{digit:x}bcd{SOME_ID[4:]}" for digit in range(16)]
    twins = [*sixteen[:1], sixteen[0][:-1] + "1"]
    lines = [
        json.dumps({"operation_id": id_, "device_id": SOME_ID, "service_id": "a", "state": 10}) for id_ in twins
    ]
    deviceops.out("ingest", "-", lines="\n".join(lines))
    refused = deviceops("status", "0bcd")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"more than one operation has an id that begins with 0bcd: {twins[0]}, {twins[1]}" in refused.stderr


def test_cancel_cancels_what_is_not_settled(deviceops: Deviceops) -> None:
    report = {"operation_id": SOME_ID, "service_id": "drift-service"}
    states = {SOME_ID: "SUCCESS", SOME_ID[:-1] + "1": "PROCESSING", SOME_ID[:-1] + "2": "CREATED"}
    lines = [
        json.dumps({**report, "device_id": device, "state": state})
        for device, last in states.items()
        for state in ("CREATED", last)
    ]
    deviceops.out("ingest", "-", lines="\n".join(lines))
    cancelled = deviceops.document("cancel", SOME_ID[:8], "--reason", "wrong window")
    assert cancelled == {"operation_id": SOME_ID, "cancelled": 2, "state": "COMPLETED"}
    reached = {each["device_id"]: each["state"] for each in deviceops.document("devices", SOME_ID)["results"]}
    assert sorted(reached.values()) == ["CANCELLED", "CANCELLED", "SUCCESS"]
    assert "wrong window" in deviceops.out("device", SOME_ID, SOME_ID[:-1] + "1")
    assert deviceops.document("cancel", SOME_ID)["cancelled"] == 0


def test_cancel_asks_on_a_terminal_and_names_the_operation(deviceops_on_sqlite: Deviceops) -> None:
    report = {"operation_id": SOME_ID, "device_id": SOME_ID, "service_id": "drift-service", "state": "CREATED"}
    deviceops_on_sqlite.out("ingest", "-", lines=json.dumps(report))
    code, said = answered(deviceops_on_sqlite, "n", "cancel", SOME_ID[:6])
    assert code == 1
    assert f"Cancel 1 unsettled device operation of operation {SOME_ID} for good?" in said
    assert "nothing was cancelled" in said
    assert deviceops_on_sqlite.document("device", SOME_ID, SOME_ID)["state"] == "CREATED"
    code, said = answered(deviceops_on_sqlite, "n", "cancel", SOME_ID[:6], "--yes")
    assert (code, "for good?" in said) == (0, False)
    assert deviceops_on_sqlite.document("device", SOME_ID, SOME_ID)["state"] == "CANCELLED"


def test_a_device_is_shown_with_its_ids_and_a_page_without_rows_says_how_many_there_are(
    deviceops_on_sqlite: Deviceops,
) -> None:
    devices = [f"{number}{SOME_ID[1:]}" for number in range(3)]
    report = {"operation_id": SOME_ID, "service_id": "drift-service", "state": "CREATED"}
    lines = [json.dumps({**report, "device_id": device, "reason": "bad checksum"}) for device in devices]
    deviceops_on_sqlite.out("ingest", "-", lines="\n".join(lines))
    found = deviceops_on_sqlite.document("device", SOME_ID, devices[1])
    shown = deviceops_on_sqlite.out("device", SOME_ID, devices[1])
    for name, value in (("operation", SOME_ID), ("device", devices[1]), ("device operation", found["id"])):
        assert re.search(rf"^{name} +{value}$", shown, re.MULTILINE)
    others = "; --offset and --limit show others"
    listed = deviceops_on_sqlite.out("devices", SOME_ID, "--limit", "2")
    assert listed.splitlines()[-1] == f"1 to 2 of 3{others}"
    assert deviceops_on_sqlite.out("devices", SOME_ID).splitlines()[-1] == "1 to 3 of 3"
    beyond = deviceops_on_sqlite.out("devices", SOME_ID, "--offset", "500")
    assert beyond == f"none after the first 500, of 3 in all{others}\n"
    narrow = on_a_terminal(deviceops_on_sqlite, 80, "devices", SOME_ID)
    assert [line.rstrip()[-1] for line in narrow if "CREATED" in line] == ["…"] * 3


def test_tokens_are_listed_and_revoked(deviceops_on_sqlite: Deviceops) -> None:
    made = deviceops_on_sqlite.document("token", "create", "ops", "--scope", "read:operation")
    with_tokens = deviceops_on_sqlite.with_settings(api_tokens=made["setting"])
    assert with_tokens.document("token", "list") == [{"name": "ops", "scopes": ["read:operation"]}]
    assert "ops" in with_tokens.out("token", "list")
    assert with_tokens.document("token", "revoke", "ops") == {"name": "ops", "setting": "{}"}
    last = with_tokens("token", "revoke", "ops")
    assert (last.returncode, last.stdout.splitlines()[-1]) == (0, "DEVICEOPS_API_TOKENS='{}'")
    assert last.stderr.startswith("warning: no token is left")
    assert "which has 1 token:" in deviceops_on_sqlite.out("token", "create", "ops", "--scope", "read:operation")
    listed = deviceops_on_sqlite.with_settings(api_tokens="{}").out("token", "list")
    assert listed == "no tokens: DEVICEOPS_API_TOKENS is set and has none\n"
    assert deviceops_on_sqlite.out("token", "list") == "no tokens: DEVICEOPS_API_TOKENS is not set\n"


def test_the_same_seed_gives_the_same_fleet_to_the_byte(deviceops_on_sqlite: Deviceops) -> None:
    first, again, other = (
        deviceops_on_sqlite.out("simulate", *FLEET, *SPOILT, "--seed", seed) for seed in ("3", "3", "4")
    )
    assert first == again
    assert first != other


def test_a_live_pipe_is_processed_before_it_ends(deviceops_on_sqlite: Deviceops) -> None:
    report = {"operation_id": SOME_ID, "device_id": SOME_ID, "service_id": "drift-service", "state": "CREATED"}
    read, write = os.pipe()
    with deviceops_on_sqlite.start("ingest", "-", "--json", stdin=read) as process:
        os.close(read)
        os.write(write, json.dumps(report).encode() + b"\n")
        while not deviceops_on_sqlite.document("status"):
            assert process.poll() is None
        os.close(write)
        out, _ = process.communicate(timeout=30)
    assert json.loads(out)["applied"] == 1


def test_a_long_document_arrives_whole_however_slowly_it_is_read(deviceops_on_sqlite: Deviceops) -> None:
    deviceops = deviceops_on_sqlite.with_environment(PYTHONUNBUFFERED="1")  # as most containers have it
    report = {"operation_id": SOME_ID, "state": "SUCCESS", "service_id": "drift-service"}
    reports = ({**report, "device_id": f"{SOME_ID[:-4]}{number:04d}"} for number in range(500))
    deviceops.out("ingest", "-", lines="".join(json.dumps(each) + "\n" for each in reports))

    with deviceops.start("dead-letters", "list", "--json", pipesize=4_096) as process:
        assert process.stdout is not None
        beginning = process.stdout.read(1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)  # the rest waits for its reader
        found = json.loads(beginning + process.stdout.read())

    assert len(found) == 500


def test_an_envelope_brings_type_message_id_and_headers(deviceops: Deviceops) -> None:
    envelope = {
        "type": "device-operation.report",
        "message_id": "m-1",
        "headers": {"trace": "t"},
        "body": "no JSON",
    }

    deviceops.out("ingest", "-", lines=json.dumps(envelope) + "\n")

    [letter] = deviceops.document("dead-letters", "list")
    assert (letter["message_id"], letter["type"], letter["reason"]) == (
        "m-1",
        "device-operation.report",
        "malformed",
    )
    shown = deviceops.document("dead-letters", "show", str(letter["id"]))
    assert (shown["headers"], shown["body"]) == ({"trace": "t"}, "no JSON")


def test_the_demo_without_a_broker_says_so_and_ends_with_exact_counters(
    deviceops_on_sqlite: Deviceops,
) -> None:
    without_broker = deviceops_on_sqlite.with_settings(amqp_url="amqp://guest:guest@127.0.0.1:1/")
    shown = without_broker.out("demo", "--devices", "40")

    assert "No RabbitMQ" in shown
    assert re.search(r" COMPLETED( +\d+){2,3} +40$", shown, re.MULTILINE)
    assert "all counters of 1 operation agree" in shown
    tried = [line for line in shown.splitlines() if line.startswith("DEVICEOPS_DATABASE_URL")]
    assert len(tried) == 4
    assert tried.pop().endswith(" serve")  # the one that does not end by itself
    for command in tried:
        setting, _, arguments = command.partition(" ")
        there = Deviceops(deviceops_on_sqlite.directory, {"database_url": setting.split("=", 1)[1]})
        assert there.out(*arguments.partition(" -m worker ")[2].split())
