"""Standard streams that are closed, that nothing reads, or that cannot be written: they cost no work, no end."""

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.ledger import PATIENCE as LONG
from tests.faults.sabotage import BEFORE_ACKNOWLEDGEMENT
from tests.support.brokering import PATIENCE, eventually, report
from tests.support.command import Deviceops
from tests.support.services.machine import free_port
from worker.log_writer import FLUSH_TIMEOUT
from worker.watch.watchdog import TRACEBACK_GRACE

SOME_ID = "00000000-0000-4000-8000-000000000000"
REPORTS = 200
STALL = 3
"""Seconds without progress after which a worker leaves."""
A_FEW = 5
"""Seconds more in which it must have left, on a machine that has other work too."""
SABOTAGED = "from tests.faults import sabotage; from worker.__main__ import main; sabotage.prepare(); main()"


def redirected(deviceops: Deviceops, how: str) -> Deviceops:
    """The command as a shell starts it with redirections."""
    return Deviceops(deviceops.directory, deviceops.settings, wrapper=("sh", "-c", f'exec "$@" {how}', "sh"))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_descriptor_costs_nothing(deviceops: Deviceops, closed: str) -> None:
    lines = deviceops.directory / "lines"
    lines.write_text(deviceops.out("simulate", "--devices", "20"))

    done = redirected(deviceops, closed)("ingest", str(lines), "--json")

    assert done.returncode == 0, done.stderr
    [operation] = deviceops.document("status")
    assert operation["operation_stats"]["device_operation_statuses_count"]["resolved_device_count"] == 20


def test_a_worker_without_any_stream_does_its_work_and_a_failing_command_has_its_exit_code(
    deviceops_on_broker: Deviceops,
) -> None:
    deviceops_on_broker.out("run", "--until-idle", "0.1")
    deviceops_on_broker.out("publish", "-", lines=deviceops_on_broker.out("simulate", "--devices", "20"))
    without = redirected(deviceops_on_broker, "<&- >&- 2>&-")
    assert without("run", "--until-idle", "2").returncode == 0
    assert len(deviceops_on_broker.document("status")) == 1
    assert without("status", SOME_ID).returncode == 1
    assert without("nonsense").returncode == 2
    unread = redirected(deviceops_on_broker, "<&-")("ingest", "-")
    assert (unread.returncode, unread.stderr) == (1, "deviceops: standard input is closed\n")


@contextmanager
def full_pipe() -> Iterator[int]:
    """The end for writing of a pipe that is full, and that nothing reads."""
    ours, its = os.pipe()
    fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, 4_096)
    yield from _filled(its, lambda: os.write(its, b"x"))
    os.close(ours)


@contextmanager
def full_socket() -> Iterator[int]:
    """As `full_pipe`, a socket, such as systemd gives a service for its journal."""
    ours, its = socket.socketpair()
    with ours, its:
        yield from _filled(os.dup(its.fileno()), lambda: its.send(b"x" * 1_000))


@contextmanager
def full_terminal() -> Iterator[int]:
    """As `full_pipe`, a terminal, such as one that was stopped by Ctrl-S."""
    ours, its = pty.openpty()
    yield from _filled(its, lambda: os.write(its, b"x"))
    os.close(ours)


def _filled(descriptor: int, write: Callable[[], int]) -> Iterator[int]:
    os.set_blocking(descriptor, False)
    with suppress(BlockingIOError):
        while True:
            write()
    os.set_blocking(descriptor, True)
    yield descriptor
    os.close(descriptor)


@contextmanager
def full_disk() -> Iterator[int]:
    """A descriptor to write to, of which each write fails with ENOSPC."""
    with Path("/dev/full").open("wb") as file:
        yield file.fileno()


@contextmanager
def broken_pipe() -> Iterator[int]:
    """A descriptor to write to, of which each write fails with EPIPE."""
    ours, its = os.pipe()
    os.close(ours)
    yield its
    os.close(its)


@pytest.mark.parametrize("stream", [full_pipe, full_socket, full_terminal, full_disk, broken_pipe])
def test_a_command_that_fails_ends_whatever_becomes_of_its_last_line(
    deviceops_on_sqlite: Deviceops, stream: Callable[[], Iterator[int]]
) -> None:
    with stream() as descriptor, deviceops_on_sqlite.running("status", SOME_ID, stderr=descriptor) as process:  # type: ignore[attr-defined]
        assert process.wait(PATIENCE + FLUSH_TIMEOUT) == 1


@pytest.mark.parametrize("stream", [full_pipe, full_disk, broken_pipe])
def test_a_notice_that_cannot_be_written_changes_no_outcome(
    deviceops_on_sqlite: Deviceops, stream: Callable[[], Iterator[int]]
) -> None:
    deviceops_on_sqlite.out("ingest", "-", lines="no report\n")
    target = str(deviceops_on_sqlite.directory / "exported")
    command = ("dead-letters", "export", "--output", target)
    with stream() as descriptor, deviceops_on_sqlite.running(*command, stderr=descriptor) as process:  # type: ignore[attr-defined]
        assert process.wait(PATIENCE + FLUSH_TIMEOUT) == 0
    assert len(Path(target).read_text().splitlines()) == 1


def test_a_log_that_nothing_reads_stops_no_worker(
    database_url: str, amqp_url: str, topology_prefix: str, tmp_path: Path
) -> None:
    port = free_port()
    deviceops = Deviceops(
        tmp_path,
        {
            "database_url": database_url,
            "amqp_url": amqp_url,
            "topology_prefix": topology_prefix,
            "probe_port": str(port),
            "log_level": "DEBUG",
            "batch_size": "1",  # with a line for each
        },
    )
    deviceops.out("run", "--until-idle", "0.1")
    deviceops.out("publish", "-", lines="".join(f"{json.dumps(report())}\n" for _ in range(REPORTS)))
    with full_pipe() as unread, deviceops.running("run", stderr=unread) as worker:

        def processed() -> bool:
            with suppress(httpx.TransportError):
                answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE, trust_env=False).text
                return f"deviceops_received_total {float(REPORTS)}" in answer
            return False

        eventually(processed, LONG)
        for probe in ("livez", "readyz"):
            answer = httpx.get(f"http://127.0.0.1:{port}/{probe}", timeout=PATIENCE, trust_env=False)
            assert answer.status_code == httpx.codes.OK
        told_to_stop = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0
        assert time.monotonic() - told_to_stop < FLUSH_TIMEOUT + A_FEW
    assert len(deviceops.document("status", "--limit", str(REPORTS))) == REPORTS


@pytest.mark.parametrize("stream", [full_pipe, full_socket])
def test_a_worker_that_hangs_ends_although_nothing_reads_where(
    deviceops_on_broker: Deviceops, tmp_path: Path, stream: Callable[[], Iterator[int]]
) -> None:
    deviceops_on_broker.out("run", "--until-idle", "0.1")
    deviceops_on_broker.out("publish", "-", lines=json.dumps(report()))
    (tmp_path / BEFORE_ACKNOWLEDGEMENT).write_text("3600 0")
    settings = {**deviceops_on_broker.settings, "stall_timeout": str(STALL), "probe_port": "0"}
    ours = {f"DEVICEOPS_{name.upper()}": value for name, value in settings.items()}
    with stream() as unread:  # type: ignore[attr-defined]
        worker = subprocess.Popen(
            [sys.executable, "-c", SABOTAGED, "run"],
            env={**os.environ, **ours, "SABOTAGE": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=unread,
        )
        try:
            eventually(lambda: not (tmp_path / BEFORE_ACKNOWLEDGEMENT).exists())
            assert worker.wait(STALL + TRACEBACK_GRACE + A_FEW) == 1
        finally:
            worker.kill()
            worker.wait()
