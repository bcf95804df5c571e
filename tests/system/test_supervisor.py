"""`deviceops run --workers N`: several workers as one process."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import httpx
import pytest

from tests.support.brokering import eventually
from tests.support.command import Deviceops
from tests.support.services.machine import family, free_port

WORKERS = 3


class Supervised:
    """The supervisor, by its probes and its processes."""

    def __init__(self, process: "Popen[str]", port: int) -> None:
        self.process = process
        self._url = f"http://127.0.0.1:{port}"

    @property
    def workers(self) -> list[int]:
        """The process ids of its workers."""
        return sorted(family(self.process.pid) - {self.process.pid})

    def ready(self) -> bool:
        """Whether all are."""
        return self._answer("readyz").status_code == httpx.codes.OK

    def reasons(self) -> dict[str, str]:
        """Why it is not ready."""
        reasons: dict[str, str] = self._answer("readyz").json().get("reasons", {})
        return reasons

    def metrics(self) -> str:
        """What it shows Prometheus."""
        return self._answer("metrics").text

    def _answer(self, path: str) -> httpx.Response:
        try:
            return httpx.get(f"{self._url}/{path}", timeout=5, trust_env=False)
        except httpx.HTTPError:
            return httpx.Response(httpx.codes.SERVICE_UNAVAILABLE, json={})


@pytest.fixture
def supervised(deviceops_on_broker: Deviceops) -> Iterator[Supervised]:
    """Three workers that are ready."""
    port = free_port()
    deviceops = deviceops_on_broker.with_settings(probe_port=str(port))
    with deviceops.running("run", "--workers", str(WORKERS), "--json") as process:
        found = Supervised(process, port)
        eventually(found.ready)
        yield found


def test_all_end_with_it_in_order_and_what_they_did_is_told_together(supervised: Supervised) -> None:
    workers = supervised.workers
    assert len(workers) == WORKERS
    supervised.process.terminate()
    out, err = supervised.process.communicate(timeout=60)
    assert (supervised.process.returncode, json.loads(out)["received"]) == (0, 0), err
    lines = [json.loads(line) for line in err.splitlines()]
    assert {line["worker"] for line in lines if line["event"] == "stopped" and "worker" in line} == {1, 2, 3}
    assert not any(is_alive(worker) for worker in workers)


def test_probes_and_metrics_are_those_of_all(supervised: Supervised) -> None:
    metrics = supervised.metrics()
    for number in range(1, WORKERS + 1):
        assert f'deviceops_ready{{worker="{number}"}} 1.0' in metrics
    assert metrics.count("# TYPE deviceops_received_total counter") == 1
    os.kill(supervised.workers[0], signal.SIGSTOP)
    try:
        eventually(lambda: "does not answer" in supervised.reasons().values())
    finally:
        os.kill(supervised.workers[0], signal.SIGCONT)
    eventually(supervised.ready)


def test_a_worker_that_dies_is_started_again(supervised: Supervised) -> None:
    before = supervised.workers
    os.kill(before[1], signal.SIGKILL)
    eventually(lambda: "deviceops_worker_restarts_total 1.0" in supervised.metrics())
    eventually(supervised.ready)
    assert len(set(supervised.workers) - set(before)) == 1


def test_workers_stop_in_order_when_it_is_killed(supervised: Supervised) -> None:
    workers = supervised.workers
    supervised.process.kill()
    eventually(lambda: not any(is_alive(worker) for worker in workers))
    assert supervised.process.stderr is not None
    events = [json.loads(line)["event"] for line in supervised.process.stderr]
    assert events.count("stopped") == WORKERS


def test_what_no_worker_can_start_with_ends_it(deviceops_on_broker: Deviceops) -> None:
    nowhere = deviceops_on_broker.with_settings(amqp_url="amqp://nobody:wrong@127.0.0.1:5672/")
    began = time.monotonic()
    done = nowhere("run", "--workers", "2")
    assert done.returncode == 1
    assert "before any was ready" in done.stderr
    assert time.monotonic() - began < 60


def test_until_idle_they_process_everything_together(deviceops_on_broker: Deviceops) -> None:
    lines = deviceops_on_broker.out("simulate", "--devices", "200", "--duplicates", "0.1")
    deviceops_on_broker.out("run", "--until-idle", "0.1")  # declares the queue
    deviceops_on_broker.out("publish", "-", lines=lines)
    tally = deviceops_on_broker.document("run", "--workers", "2", "--until-idle", "2")
    assert tally["received"] == len(lines.splitlines())
    assert tally["duplicate"] > 0
    assert deviceops_on_broker.document("recount")["drifted"] == []


def is_alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
