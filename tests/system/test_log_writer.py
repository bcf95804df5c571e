"""The writer of the log: what it does with lines that nothing takes."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.brokering import PATIENCE, eventually
from worker.log_writer import FLUSH_TIMEOUT, LIMIT, LogWriter

LINE = "x" * 999
UNTIL_DRAINED = f"""
import logging
from worker.cli import log_format
log_format.configure("INFO", "json")
log = logging.getLogger("worker")
for number in range({3 * LIMIT // 1_000}):
    log.info("%s", number * 10 ** 900)
print("logged", flush=True)
input()
log.info("the last one")
"""


@pytest.fixture
def pipe() -> tuple[int, int]:
    """The ends of a small pipe."""
    ours, its = os.pipe()
    fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, 4_096)
    return ours, its


def read(descriptor: int, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        data += os.read(descriptor, size - len(data))
    return data


def test_lines_come_in_their_order_and_whole_however_slowly_they_are_read(pipe: tuple[int, int]) -> None:
    for blocking in (True, False):  # others may have this pipe too, and change it
        os.set_blocking(pipe[1], blocking)
        writer = LogWriter(pipe[1])
        lines = [f"{number} {LINE}" for number in range(100)]
        for line in lines:
            writer.write(line)
        expected = "".join(f"{line}\n" for line in lines).encode()
        assert read(pipe[0], len(expected)) == expected
        writer.flush()
        assert writer.dropped == 0


def test_what_does_not_fit_is_dropped_and_counted_and_told_once_it_flows(pipe: tuple[int, int]) -> None:
    writer = LogWriter(pipe[1])
    writer.note = lambda lines: f"{lines} were dropped"
    count = 2 * LIMIT // len(LINE)
    began = time.monotonic()
    for _ in range(count):
        writer.write(LINE)
    assert time.monotonic() - began < PATIENCE
    assert count / 3 < writer.dropped < count
    kept, note = count - writer.dropped, f"{writer.dropped} were dropped\n".encode()
    assert read(pipe[0], kept * (len(LINE) + 1) + len(note)).endswith(b"x\n" + note)
    writer.write("after")
    assert read(pipe[0], 6) == b"after\n"


def test_the_end_waits_for_a_bounded_time_in_all(pipe: tuple[int, int]) -> None:
    writer = LogWriter(pipe[1])
    for _ in range(10):
        writer.write(LINE)
    began = time.monotonic()
    for _ in range(3):
        writer.flush()
    assert FLUSH_TIMEOUT <= time.monotonic() - began < 2 * FLUSH_TIMEOUT
    threading.Timer(0.1, read, (pipe[0], 10_000)).start()


def test_what_cannot_be_written_is_counted_and_what_comes_later_begins_a_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as file:
        writer = LogWriter(file.fileno())
        writer.note = lambda lines: f"{lines} were dropped"
        for _ in range(3):
            writer.write(LINE)
        writer.flush()
        assert writer.dropped == 3
        with (tmp_path / "log").open("wb") as room:
            os.dup2(room.fileno(), file.fileno())
        writer._is_mid_line = True  # as on a disk that became full within a line
        writer.write("after")
        eventually(lambda: (tmp_path / "log").read_text() == "\nafter\n3 were dropped\n")


def test_the_log_says_in_its_own_format_how_many_lines_were_dropped() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UNTIL_DRAINED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pipesize=4_096,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"logged\n"
        process.stdin.write(b"\n")
        process.stdin.close()
        said = [json.loads(line) for line in process.stderr]
        assert process.wait(PATIENCE) == 0
    [note] = [line for line in said if "dropped" in line["event"]]
    lines = int(note["event"].removesuffix(" log lines were dropped"))
    assert (note["level"], list(note)[:4]) == ("warning", ["timestamp", "level", "event", "logger"])
    assert len(said) - 2 + lines == 3 * LIMIT // 1_000
