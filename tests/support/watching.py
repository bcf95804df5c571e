"""A worker and an API that run and answer probes, and what they answer."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.brokering import PATIENCE, until_logged
from tests.support.command import Deviceops
from tests.support.services.machine import free_port


class Running:
    """A process of ours that runs, and what it answers to probes."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> httpx.Response:
        """The answer to a probe."""
        return httpx.get(f"{self._url}/{path}", timeout=PATIENCE)

    def is_ready(self) -> bool:
        """Whether it says so."""
        return self.get("readyz").status_code == httpx.codes.OK

    def metrics(self) -> dict[str, float]:
        """Each sample by its name and labels, as Prometheus reads them."""
        families = text_string_to_metric_families(self.get("metrics").text)
        return {
            sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


@contextmanager
def running(deviceops: Deviceops, **environment: str) -> Iterator[Running]:
    """A worker that answers probes; it must leave with 0 when it is told to, unless the test has ended it."""
    port = free_port()
    deviceops = deviceops.with_settings(probe_port=str(port)).with_environment(**environment)
    with deviceops.start("run", "--json") as process:
        try:
            until_logged(process, "answering probes")
            yield Running(process, port)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                _, errors = process.communicate(timeout=PATIENCE)
                assert process.returncode == 0, errors
        finally:
            process.kill()
