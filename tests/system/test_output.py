"""Where results are written to may end, be full, or lack letters: that is told for what it is, or not at all."""

import json
import os
from pathlib import Path

import pytest

from tests.support.brokering import report
from tests.support.command import Deviceops

REASON = "caf\u00e9 \u65e5\u672c \U0001f680"


@pytest.fixture
def filled(deviceops: Deviceops) -> Deviceops:
    """The command on a database with more dead letters than a pipe and a buffer hold."""
    lines = [json.dumps(report("SUCCESS") | {"reason": "x" * 1_000}) for _ in range(200)]
    deviceops.out("ingest", "-", lines="\n".join(lines))
    return deviceops


def run_into(deviceops: Deviceops, path: str, *arguments: str) -> tuple[int, str]:
    with Path(path).open("w") as output, deviceops.start(*arguments, stdout=output) as process:
        _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_a_reader_that_has_seen_enough_is_no_failure_of_the_database(filled: Deviceops) -> None:
    for command in (["export"], ["list", "--json", "--limit", "200"]):
        with filled.start("dead-letters", *command, pipesize=4_096) as process:
            assert process.stdout is not None
            assert process.stdout.read(100)
            process.stdout.close()
            assert process.stderr is not None
            told = process.stderr.read()
        assert (process.returncode, told) == (0, "")


@pytest.mark.parametrize("command", [["dead-letters", "export"], ["status", "--json"]])
def test_a_full_disk_below_standard_output_is_named(filled: Deviceops, command: list[str]) -> None:
    expected = (1, "deviceops: standard output: No space left on device\n")
    assert run_into(filled, "/dev/full", *command) == expected


def test_a_full_disk_below_a_file_is_named(filled: Deviceops) -> None:
    done = filled("dead-letters", "export", "--output", "/dev/full")
    assert (done.returncode, done.stderr) == (1, "deviceops: /dev/full: No space left on device\n")


def test_a_file_that_fails_while_it_is_read_is_named(deviceops_on_sqlite: Deviceops) -> None:
    done = deviceops_on_sqlite("ingest", "/proc/self/mem")  # whose first page nothing is mapped to
    assert done.returncode == 1
    assert done.stderr.endswith("deviceops: /proc/self/mem: Input/output error\n")


def test_a_command_that_fails_with_nobody_to_read_its_output_still_says_why(filled: Deviceops) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as output, filled.start("dead-letters", "show", "999", stdout=output) as process:
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "deviceops: dead letter 999 is unknown\n")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_a_terminal_has_no_letters_for_is_escaped(deviceops_on_sqlite: Deviceops, encoding: str) -> None:
    narrow = deviceops_on_sqlite.with_environment(PYTHONIOENCODING=encoding)
    created = report()
    pair = created["operation_id"], created["device_id"]
    narrow.out("ingest", "-", lines=json.dumps(created | {"reason": REASON}))

    def shown(*command: str) -> str:
        path = deviceops_on_sqlite.directory / "shown"
        assert run_into(narrow, str(path), *command) == (0, "")
        return path.read_text(encoding)

    document = shown("device", *pair, "--json")
    assert json.loads(document)["reason"] == REASON
    assert "\\u65e5\\u672c \\ud83d\\ude80" in document
    assert ("\u00e9" in document) == (encoding == "latin-1")
    assert "\\u65e5" in shown("device", *pair)


@pytest.mark.parametrize(
    "command",
    [
        ["dead-letters", "list", "--service", "a\udcff"],
        ["dead-letters", "discard", "1", "--because", "a\udcff"],
        ["dead-letters", "edit", "1", "--type", "a\udcff"],
        ["token", "create", "a\udcff", "--scope", "read:operation"],
    ],
)
def test_an_argument_that_is_no_text_is_refused(deviceops_on_sqlite: Deviceops, command: list[str]) -> None:
    deviceops_on_sqlite.out("ingest", "-", lines="{}\n")

    done = deviceops_on_sqlite(*command)

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "'a\\udcff' is not UTF-8" in done.stderr
    assert len(deviceops_on_sqlite.document("dead-letters", "list")) == 1
