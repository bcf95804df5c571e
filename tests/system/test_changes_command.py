"""`deviceops changes`: what changes, as lines, without a broker and without a worker."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.command import TIMEOUT, Deviceops
from tests.support.seed import OPERATION
from tests.support.serving import DEVICES, REPORT
from tests.support.terminal import on_a_terminal

OTHER = "0b0f0d7e-0000-4000-8000-000000000001"
KEYS = ["position", "id", "type", "routing_key", "operation_id", "sequence", "recorded_at", "data"]


def report(deviceops: Deviceops, state: str, devices: list[str], operation: str = OPERATION["id"]) -> None:
    reports = ({**REPORT, "operation_id": operation, "device_id": device, "state": state} for device in devices)
    deviceops.out("ingest", "-", lines="".join(json.dumps(each) + "\n" for each in reports))


def printed(deviceops: Deviceops, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in deviceops.out("changes", *options).splitlines()]


@pytest.fixture
def told(deviceops: Deviceops) -> Deviceops:
    """Three changes of an operation, one of another, and one of dead letters."""
    report(deviceops, "CREATED", DEVICES)
    report(deviceops, "CREATED", DEVICES[:1], OTHER)
    report(deviceops, "SUCCESS", DEVICES[:1])
    deviceops("ingest", "-", lines="{}\n")
    report(deviceops, "SUCCESS", DEVICES[1:2])
    return deviceops


def test_changes_are_lines_of_json_from_any_position_or_sequence(told: Deviceops) -> None:
    everything = printed(told)
    assert [list(each) for each in everything] == [KEYS] * 5
    assert [each["position"] for each in everything] == [1, 2, 3, 4, 5]
    assert [each["sequence"] for each in everything] == [1, 1, 2, None, 3]
    assert [each["operation_id"] for each in everything] == [
        OPERATION["id"],
        OTHER,
        OPERATION["id"],
        None,
        OPERATION["id"],
    ]
    assert everything[3]["type"] == "dead-letters.added"
    for each in everything:
        assert each["data"].get("sequence") == each["sequence"]
        assert each["recorded_at"].endswith("Z")
        assert each["routing_key"].partition(".")[0] == each["type"].partition(".")[0]
    assert len({each["id"] for each in everything}) == 5
    for position in range(6):
        assert printed(told, "--since", str(position), "--json") == everything[position:]
    of_one = [each for each in everything if each["operation_id"] == OPERATION["id"]]
    for sequence in range(4):
        assert printed(told, "--operation", OPERATION["id"][:8], "--since", str(sequence)) == of_one[sequence:]
    assert printed(told, "--operation", OPERATION["id"]) == of_one


def test_what_is_not_kept_any_more_is_an_error_unless_nothing_is_missed(told: Deviceops) -> None:
    assert told.with_settings(changes_limit="1000").document("prune")["changes"] == 0
    assert told.with_settings(keep_changes="0").document("prune")["changes"] == 5
    report(told, "SUCCESS", DEVICES[2:3])
    of_one = ["--operation", OPERATION["id"]]
    for options in (["--since", "5"], [*of_one, "--since", "3"], of_one, []):
        assert [each["position"] for each in printed(told, *options)] == [6]
    assert printed(told, *of_one, "--since", "4") == []
    assert printed(told, "--operation", OTHER, "--since", "1") == []
    for options, words in (
        (["--since", "4"], "--since 5 prints those that are"),
        (["--since", "7"], "there is no such position, the last one is 6"),
        ([*of_one, "--since", "2"], "--since 3 prints those that are"),
        ([*of_one, "--since", "5"], "the operation has no such change, the last one is 4"),
        (["--operation", OTHER, "--since", "0"], "none of them is"),
        (["--operation", "00000000-0000-4000-8000-000000000000"], "is unknown"),
    ):
        done = told("changes", *options)
        assert (done.returncode, done.stdout) == (1, ""), options
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_on_a_terminal_a_change_is_a_line_for_people(told: Deviceops) -> None:
    report(told.with_settings(changes="all"), "SUCCESS", DEVICES[2:4])
    lines = [line.split(maxsplit=4)[2:] for line in on_a_terminal(told, 160, "changes") if line]
    assert lines == [
        ["operation.changed", OPERATION["id"], "RESOLVED: 0 succeeded, 0 failed, of 10 devices"],
        ["operation.changed", OTHER, "RESOLVED: 0 succeeded, 0 failed, of 1 devices"],
        ["operation.changed", OPERATION["id"], "DISPATCHING: 1 succeeded, 0 failed, of 10 devices"],
        ["dead-letters.added", "-", "1 malformed"],
        ["operation.changed", OPERATION["id"], "DISPATCHING: 2 succeeded, 0 failed, of 10 devices"],
        ["operation.changed", OPERATION["id"], "DISPATCHING: 4 succeeded, 0 failed, of 10 devices"],
        ["device-operations.changed", OPERATION["id"], "2 SUCCESS"],
    ]


def test_where_nothing_is_told_it_says_so(deviceops_on_sqlite: Deviceops) -> None:
    done = deviceops_on_sqlite.with_settings(changes="none")("changes")
    assert (done.returncode, done.stdout) == (2, "")
    assert "DEVICEOPS_CHANGES is none" in done.stderr


@contextmanager
def following(deviceops: Deviceops, *options: str) -> Iterator[subprocess.Popen[str]]:
    with deviceops.running("changes", "--follow", *options, pipesize=-1) as process:
        yield process


def positions(process: subprocess.Popen[str], number: int) -> list[int]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline())["position"] for _ in range(number)]


def test_it_follows_while_reports_come_until_it_is_interrupted(told: Deviceops) -> None:
    with following(told, "--since", "2") as process:
        assert positions(process, 3) == [3, 4, 5]
        for number, device in enumerate(DEVICES[2:6]):
            report(told, "SUCCESS", [device])
            assert positions(process, 1) == [6 + number]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, out, err) == (0, "", "")


def test_it_ends_when_nobody_reads_it_any_more(told: Deviceops) -> None:
    with following(told) as process:
        assert positions(process, 1) == [1]
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
