"""What comes from outside has limits: beyond them it is not read, and what is said is clear."""

import json
import resource
import subprocess

import pytest

from tests.support.brokering import report
from tests.support.command import Deviceops
from tests.support.sending import DEVICES, OPERATIONS, report_body
from worker.model.messages import MAX_BODY

DETAIL = "body: is larger than 67,108,864 bytes"


def filled(size: int) -> bytes:
    """A good report of so many bytes."""
    bare = json.dumps(report_body(OPERATIONS[0], DEVICES[0], "CREATED", reason="")).encode()
    return bare.replace(b'"reason": "', b'"reason": "' + b"x" * (size - len(bare)))


def test_a_line_without_end_is_a_dead_letter_and_does_not_eat_the_memory(deviceops_on_sqlite: Deviceops) -> None:
    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    with deviceops_on_sqlite.start(
        *("ingest", "-", "--json"), stdin=subprocess.PIPE, preexec_fn=little_memory
    ) as ingesting:
        assert ingesting.stdin is not None
        ingesting.stdin.write(f"{json.dumps(report())}\n")
        for _ in range(1_500):  # more than the memory that it may have
            ingesting.stdin.write("x" * 2**20)
        out, err = ingesting.communicate(f"\n{json.dumps(report())}\n", timeout=120)

    assert ingesting.returncode == 0, err
    tally = json.loads(out)
    assert (tally["applied"], tally["dead_lettered"]) == (2, {"malformed": 1})
    [letter] = deviceops_on_sqlite.document("dead-letters", "list")
    assert letter["detail"] == DETAIL


def test_what_no_worker_would_read_is_not_published(deviceops_on_broker: Deviceops) -> None:
    deviceops_on_broker.out("run", "--until-idle", "0.1")
    done = deviceops_on_broker("publish", "-", lines=filled(MAX_BODY + 1).decode())

    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "has a message larger than 67,108,864 bytes, which no worker reads" in done.stderr
    assert "ready, 0 messages wait" in deviceops_on_broker.out("check")


@pytest.mark.parametrize("size", [0, 1, 10, 2**20 - 1, 2**20, 2**20 + 1])
def test_lines_are_told_apart_wherever_a_chunk_ends(deviceops_on_sqlite: Deviceops, size: int) -> None:
    padding = "x" * size
    lines = "".join(json.dumps({"body": {**report(), "reason": padding}}) + "\n" for _ in range(3))

    assert deviceops_on_sqlite.document("ingest", "-", lines=lines)["applied"] == 3
    assert deviceops_on_sqlite.document("ingest", "-", lines=lines.removesuffix("\n"))["duplicate"] == 3
