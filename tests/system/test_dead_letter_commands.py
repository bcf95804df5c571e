"""`deviceops dead-letters` as the one on call uses it: find, understand, mend, put away, take along."""

import gzip
import json
import os
import pwd
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from tests.support.brokering import report
from tests.support.command import Deviceops
from tests.support.databases import in_a_thread
from tests.support.sending import process
from tests.support.terminal import on_a_terminal
from worker.model.messages import Message, Origin
from worker.store.database import Database

OPERATION, OTHER = str(uuid4()), str(uuid4())
DEVICES = [str(uuid4()) for _ in range(4)]


def line(device: int, state: str, /, **more: object) -> str:
    return json.dumps({**report(state, DEVICES[device], OPERATION), "operation_type": "CONVERGE", **more})


LINES = [
    line(0, "CREATED"),
    line(0, "FAILURE"),
    line(0, "SUCCESS", report_id="conflict"),  # 2, behind the unreadable ones
    line(1, "SUCCESS", report_id="parked"),
    line(0, "PROCESSING", operation_type="REBOOT"),
    line(2, "CREATED"),
    line(2, "FINE", report_id="typo"),
    line(3, "CREATED", operation_id=OTHER, service_id="other-service"),
    line(3, "SUCCESS", operation_id=OTHER, service_id="other-service"),
    line(3, "FAILURE", operation_id=OTHER, service_id="other-service"),
]
SHAPE = {"selected", "applied", "late", "repeated", "duplicate", "released", "still_dead"}


@pytest.fixture
def deviceops(deviceops_on_sqlite: Deviceops) -> Deviceops:
    """The command on a database with a few dead letters of every kind."""
    deviceops_on_sqlite.out("ingest", "-", lines="\n".join(LINES))
    return deviceops_on_sqlite


def letters(deviceops: Deviceops, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = deviceops.document("dead-letters", "list", *options)
    return found


def id_of(deviceops: Deviceops, detail: str) -> str:
    [found] = [letter for letter in letters(deviceops, "--status", "all") if detail in letter["detail"]]
    return str(found["id"])


def test_dead_letters_are_found_by_everything_that_they_name(deviceops: Deviceops) -> None:
    everything = letters(deviceops)

    def expect(number: int, *options: str) -> None:
        found = letters(deviceops, *options)
        assert len(found) == number, options
        assert all(letter in everything for letter in found)

    expect(5)
    expect(2, "--reason", "conflict")
    expect(4, "--operation", OPERATION)
    expect(2, "--device", DEVICES[0])
    expect(1, "--service", "other-service", "--reason", "conflict")
    expect(5, "--since", "1h", "--until", "2999-01-01T00:00:00+02:00")
    expect(0, "--until", "2026-01-31")
    expect(3, "--limit", "3")
    expect(0, "--status", "discarded")
    expect(2, "1", "--id", "2")


def test_dead_letters_are_counted_by_what_they_have_in_common(deviceops: Deviceops) -> None:
    by_reason = deviceops.document("dead-letters", "list", "--group-by", "reason")
    assert {group["reason"]: group["count"] for group in by_reason} == {
        "conflict": 2,
        "malformed": 1,
        "operation_type_mismatch": 1,
        "unknown_device_operation": 1,
    }
    assert by_reason[0]["count"] == 2
    assert by_reason[0]["oldest"] < by_reason[0]["newest"]
    by_operation = deviceops.document("dead-letters", "list", "--group-by", "operation", "--reason", "conflict")
    assert {group["operation_id"]: group["count"] for group in by_operation} == {OPERATION: 1, OTHER: 1}
    by_service = deviceops.document("dead-letters", "list", "--group-by", "service")
    counts = {group["service_id"]: group["count"] for group in by_service}
    assert counts == {"drift-service": 4, "other-service": 1}
    shown = deviceops.out("dead-letters", "list", "--group-by", "detail")
    assert re.search(r"^ +1 +SUCCESS after FAILURE contradicts it +20", shown, re.MULTILINE)


def test_show_tells_of_a_conflict_what_would_be_allowed(deviceops: Deviceops) -> None:
    id_ = id_of(deviceops, "FAILURE after SUCCESS")
    shown = deviceops.out("dead-letters", "show", id_)
    assert "The device operation is SUCCESS now; a report may move it to: COMPLETED" in shown
    assert f'    "device_id": "{DEVICES[3]}",' in shown, "the body is laid out"
    final = deviceops.document("dead-letters", "show", id_of(deviceops, "SUCCESS after FAILURE"))
    assert (final["current_state"], final["allowed_states"]) == ("FAILURE", [])
    assert [entry["action"] for entry in final["history"]] == ["received"]


WRONG = {
    2: [
        ["replay"],
        ["replay", "--limit", "5"],
        ["replay", "--all", "--dry-run", "--to-broker"],
        ["discard", "--because", "x"],
        ["discard", "--all", "--because", " "],
        ["discard", "--all"],
        ["restore"],
        ["prune", "--older-than", "30"],
        ["list", "--since", "yesterday"],
        ["list", "--since", "1700000000"],
        ["list", "--group-by", "colour"],
    ],
    1: [
        ["replay", "77"],
        ["edit", "77", "--body", "-"],
        ["list", "77"],
        ["list", "77", "--group-by", "reason"],
        ["discard", "77", "--because", "x", "--dry-run"],
        ["edit", "1", "--body", "no-such-file"],
        ["import", "no-such-file"],
    ],
}


def test_what_is_wrong_is_one_clear_line_and_changes_nothing(deviceops: Deviceops) -> None:
    before = letters(deviceops, "--status", "all")
    for code, commands in WRONG.items():
        for command in commands:
            done = deviceops("dead-letters", *command)
            assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), (command, done.stderr)
            assert done.stderr.startswith("deviceops: ")
    assert letters(deviceops, "--status", "all") == before


def test_a_dry_run_says_what_a_replay_then_does(deviceops: Deviceops) -> None:
    correction = {"id": OPERATION, "operation_type": "REBOOT", "device_ids": DEVICES[:1]}
    deviceops.out("ingest", "-", lines=json.dumps({"type": "operation.announced", "body": correction}))
    before = letters(deviceops, "--status", "all")

    foretold = deviceops.document("dead-letters", "replay", "--all", "--dry-run")

    assert letters(deviceops, "--status", "all") == before
    outcomes = {letter["id"]: letter["outcome"] for letter in foretold.pop("dead_letters")}
    assert outcomes[int(id_of(deviceops, "the report says"))] == "late"
    replayed = deviceops.document("dead-letters", "replay", "--all", "--rate", "1000")
    assert replayed == foretold
    assert set(replayed) == SHAPE
    assert (replayed["selected"], replayed["late"]) == (5, 1)
    assert replayed["still_dead"] == {
        "conflict": 1,
        "malformed": 1,
        "operation_type_mismatch": 1,  # the conflict of before: types are compared first
        "unknown_device_operation": 1,
    }
    again = deviceops.document("dead-letters", "replay", "--all")
    assert (again["selected"], again["late"]) == (4, 0)


def test_a_typo_is_corrected_in_the_editor_and_processed_at_once(deviceops: Deviceops) -> None:
    id_ = id_of(deviceops, "'FINE'")
    unchanged = deviceops.with_environment(EDITOR="true")("dead-letters", "edit", id_)
    assert (unchanged.returncode, unchanged.stderr) == (1, "deviceops: nothing was changed\n")
    broken = deviceops.with_environment(EDITOR="sed -i s/{//")("dead-letters", "edit", id_)
    assert broken.returncode == 1
    assert "not corrected: body: Invalid JSON" in broken.stderr
    kept = re.search(r"--body (\S+)", broken.stderr)
    assert kept is not None
    assert f"deviceops dead-letters edit {id_} --body" in broken.stderr
    text = Path(kept[1])
    assert "FINE" in text.read_text()
    text.unlink()
    failing = deviceops.with_environment(EDITOR="false")("dead-letters", "edit", id_)
    assert failing.stderr == "deviceops: the editor 'false' ended with 1; nothing was changed\n"

    none = deviceops.with_environment(VISUAL="nosucheditor")("dead-letters", "edit", id_)
    assert none.stderr == "deviceops: the editor 'nosucheditor' cannot be started: No such file or directory\n"
    piped = deviceops.with_environment(VISUAL="", EDITOR="")("dead-letters", "edit", id_)
    assert piped.returncode == 2
    assert piped.stderr == "deviceops: no terminal for an editor: give the corrected body with --body\n"

    done = deviceops.with_environment(EDITOR="sed -i s/FINE/SUCCESS/").document("dead-letters", "edit", id_)

    assert (done["corrects"], done["applied"], done["still_dead"]) == (int(id_), 1, {})
    assert deviceops.document("device", OPERATION, DEVICES[2])["state"] == "SUCCESS"
    original = deviceops.document("dead-letters", "show", id_)
    copy = deviceops.document("dead-letters", "show", str(done["id"]))
    assert (original["status"], original["corrected_by"], copy["corrects"]) == ("resolved", [done["id"]], int(id_))
    assert "FINE" in original["body"]
    assert copy["message_id"] != original["message_id"]
    refused = deviceops("dead-letters", "edit", id_, "--body", "-", lines=line(2, "SUCCESS"))
    assert refused.stderr == f"deviceops: dead letter {id_} is resolved; only an open one can be corrected\n"


async def send_packed(url: str, body: bytes) -> None:
    database = Database(make_url(url))
    origin = Origin(properties={"content_encoding": "gzip"})
    await process(database, [[Message(gzip.compress(body), datetime.now(UTC), origin=lambda: origin)]])
    await database.close()


def test_a_packed_body_is_shown_and_corrected_unpacked(deviceops: Deviceops) -> None:
    in_a_thread(send_packed(deviceops.settings["database_url"], line(2, "FINEST").encode()))
    id_ = id_of(deviceops, "'FINEST'")
    assert '"state": "FINEST"' in deviceops.out("dead-letters", "show", id_)

    done = deviceops.with_environment(EDITOR="sed -i s/FINEST/SUCCESS/").document("dead-letters", "edit", id_)

    assert (done["corrects"], done["applied"]) == (int(id_), 1)


def test_a_corrected_conflict_is_no_duplicate_of_itself(deviceops: Deviceops) -> None:
    id_ = id_of(deviceops, "FAILURE after SUCCESS")
    body = line(3, "COMPLETED", operation_id=OTHER, service_id="other-service", report_id="conflict")

    done = deviceops.document("dead-letters", "edit", id_, "--body", "-", lines=body)

    assert (done["applied"], done["duplicate"]) == (1, 0)
    assert deviceops.document("device", OTHER, DEVICES[3])["state"] == "COMPLETED"


def test_what_is_discarded_says_why_and_who_and_can_be_taken_back(deviceops: Deviceops) -> None:
    id_ = id_of(deviceops, "SUCCESS after FAILURE")

    assert deviceops.document("dead-letters", "discard", id_, "--because", "a lab device") == {"discarded": 1}

    assert int(id_) not in {letter["id"] for letter in letters(deviceops)}
    assert deviceops.document("dead-letters", "replay", id_)["selected"] == 0
    shown = deviceops.document("dead-letters", "show", id_)
    entry = shown["history"][-1]
    me = pwd.getpwuid(os.getuid()).pw_name
    assert (shown["status"], entry["actor"], entry["outcome"]) == ("discarded", me, "a lab device")
    again = deviceops("dead-letters", "discard", id_, "--because", "x")
    assert (again.stdout, again.returncode) == ("dead letters discarded: 0\n", 0)
    assert f"dead letter {id_} is discarded: left alone" in again.stderr
    assert deviceops.document("dead-letters", "restore", "--all") == {"restored": 1}
    assert int(id_) in {letter["id"] for letter in letters(deviceops)}


def test_dead_letters_travel_with_their_bytes_and_their_history(deviceops: Deviceops) -> None:
    odd = {"body": "\xff\0 no JSON", "message_id": "m\0", "headers": {"h": [1, "\0", "\\u0000"]}}
    deviceops.out("ingest", "-", lines=json.dumps(odd))
    deviceops.out("dead-letters", "discard", "--reason", "conflict", "--because", "x")
    exported = deviceops.out("dead-letters", "export", "--status", "all")
    elsewhere = deviceops.with_settings(database_url="sqlite:///elsewhere.db")

    assert elsewhere.document("dead-letters", "import", "-", lines=exported) == {"read": 6, "imported": 6}
    assert elsewhere.document("dead-letters", "import", "-", lines=exported) == {"read": 6, "imported": 0}

    def told(of: Deviceops) -> list[Any]:
        lines = [json.loads(line) for line in of.out("dead-letters", "export", "--status", "all").splitlines()]
        for one in lines:
            del one["id"]
            one["history"] = [entry for entry in one["history"] if entry["action"] != "imported"]
            if one["status"] != "open":  # what is closed stands for its report only where it was closed
                for name in ("fingerprint", "device_operation_id", "report_id"):
                    del one[name]
            elif one["reason"] == "unknown_device_operation":  # tried at once, as its registration might be there
                one["attempts"], one["history"] = 1, one["history"][:1]
        return sorted(lines, key=lambda one: str(one["body_base64"]))

    assert told(elsewhere) == told(deviceops)
    bad = [*exported.splitlines()[:1], "", '{"id": 1, "reason": "boredom"}']
    refused = elsewhere("dead-letters", "import", "-", lines="\n".join(bad))
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("deviceops: line 3: fingerprint: is missing")
    whole = deviceops("dead-letters", "export", "--output", "all.jsonl", "--status", "all")
    assert (whole.stdout, whole.stderr) == ("", "dead letters exported: 6\n")
    assert (deviceops.directory / "all.jsonl").read_text() == exported


def test_prune_removes_closed_ones_and_never_an_open_one(deviceops: Deviceops) -> None:
    deviceops.out("dead-letters", "discard", "--reason", "conflict", "--because", "x")

    assert deviceops.document("dead-letters", "prune", "--older-than", "1d") == {"dead_letters": 0}
    assert deviceops.with_settings(keep_bodies="0").document("prune")["bodies"] == 2
    emptied = deviceops.out("dead-letters", "show", id_of(deviceops, "SUCCESS after FAILURE"))
    assert "removed by retention at 20" in emptied
    assert deviceops.document("dead-letters", "restore", "--all") == {"restored": 0}
    assert deviceops.document("dead-letters", "prune", "--older-than", "0s") == {"dead_letters": 2}
    assert {letter["status"] for letter in letters(deviceops, "--status", "all")} == {"open"}
    assert "everything else is kept for ever" in deviceops.out("prune")


def test_a_replay_without_success_points_to_the_cause(deviceops: Deviceops) -> None:
    id_ = id_of(deviceops, "'FINE'")
    replayed = deviceops.out("dead-letters", "replay", id_)
    hint = f"`deviceops dead-letters show {id_}` shows why, `… edit {id_}` corrects the message"
    assert replayed.splitlines()[-1] == hint


def test_list_says_of_each_id_why_it_is_not_listed(deviceops: Deviceops) -> None:
    id_ = id_of(deviceops, "'FINE'")
    deviceops.out("dead-letters", "discard", id_, "--because", "a test")
    listed = deviceops("dead-letters", "list", id_)
    expected = (0, "no dead letters\n", f"dead letter {id_} is discarded: --status all lists it\n")
    assert (listed.returncode, listed.stdout, listed.stderr) == expected
    assert [letter["id"] for letter in letters(deviceops, id_, "--status", "all")] == [int(id_)]
    short = deviceops("dead-letters", "list", "--operation", OPERATION[:6])
    assert f"'{OPERATION[:6]}' is not a UUID: give the whole id" in short.stderr


def test_a_dry_run_of_discard_lists_what_it_would_discard(deviceops: Deviceops) -> None:
    arguments = ("dead-letters", "discard", "--reason", "malformed", "--dry-run")
    listed = letters(deviceops, "--reason", "malformed")
    assert listed
    assert deviceops.document(*arguments) == listed
    assert "nothing was changed" in deviceops.out(*arguments)
    assert letters(deviceops, "--reason", "malformed") == listed


def test_dead_letters_are_found_and_shown_by_their_message_id(deviceops: Deviceops) -> None:
    named = json.dumps({"message_id": "mine", "body": {"a": 1}})
    deviceops.out("ingest", "-", lines=named)
    [found] = letters(deviceops, "--message-id", "mine")
    assert letters(deviceops, "--message-id", "none") == []
    assert deviceops.document("dead-letters", "show", "--message-id", "mine")["id"] == found["id"]
    unknown = deviceops("dead-letters", "show", "--message-id", "none")
    assert unknown.stderr == "deviceops: no dead letter has the message id 'none'\n"


def test_prune_asks_on_a_terminal(deviceops: Deviceops) -> None:
    keeping = deviceops.with_settings(keep_dead_letters="1")
    for answer, code, said in (("n", 1, "nothing was removed"), ("y", 0, "dead_letters")):
        ours, theirs = os.openpty()
        with keeping.start("prune", stdin=theirs) as process:
            os.write(ours, f"{answer}\n".encode())
            out, err = process.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == code
        assert "Remove for good" in err
        assert said in out + err


def test_status_tells_how_many_reports_are_parked_and_for_how_long(deviceops: Deviceops) -> None:
    nobodys = str(uuid4())
    deviceops.out("ingest", "-", lines=json.dumps(report("SUCCESS", None, nobodys)))

    assert re.search(rf"{OPERATION} +1 +0 +(a moment|a second|\d+ seconds)", deviceops.out("status"))
    hasty = deviceops.with_settings(stale_after="0.001")
    assert re.search(rf"{OPERATION} +1 +1 ", hasty.out("status", OPERATION))
    unknown = deviceops("status", nobodys)
    assert (
        unknown.stderr == f"deviceops: operation {nobodys} is unknown; reports that wait for its registration: 1\n"
    )


def test_run_logs_that_parked_reports_are_stale(deviceops_on_broker: Deviceops) -> None:
    deviceops = deviceops_on_broker.with_settings(stale_after="0.001")
    deviceops.out("ingest", "-", lines="\n".join(LINES))

    done = deviceops("run", "--until-idle", "0.3")

    [warning] = [json.loads(line) for line in done.stderr.splitlines() if "stale" in line]
    assert (warning["level"], warning["reports"], warning["operation_id"]) == ("warning", 1, OPERATION)


@pytest.mark.parametrize("columns", [80, 160])
def test_on_a_terminal_every_line_fits_and_in_a_pipe_nothing_is_drawn(deviceops: Deviceops, columns: int) -> None:
    commands = [["list"], ["list", "--group-by", "detail"], ["show", "2"], ["replay", "--all"]]
    for command in commands:
        lines = on_a_terminal(deviceops, columns, "dead-letters", *command)
        assert [text for text in lines if len(text) > columns] == [], command
        assert "".join(lines).strip()
        piped = deviceops("dead-letters", *command)
        assert "\x1b" not in piped.stdout + piped.stderr
        assert piped.stderr == ""
    nothing = on_a_terminal(deviceops, columns, "dead-letters", "list", "--status", "discarded")
    assert nothing == ["no dead letters", ""]
