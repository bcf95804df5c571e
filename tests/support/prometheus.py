"""Debian's Prometheus on the project's own configuration, and its `promtool`."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.brokering import eventually
from tests.support.services.machine import free_port

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"


def promtool(*arguments: str, text: str | None = None) -> str:
    """What promtool says; it must have no objection."""
    program = shutil.which("promtool")
    assert program is not None, "the tests need promtool: run apt-get install prometheus"
    done = subprocess.run([program, *arguments], cwd=MONITORING, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """One that runs, and what it knows."""

    def __init__(self, url: str) -> None:
        self._url = url

    def is_ready(self) -> bool:
        """Whether it serves."""
        try:
            return httpx.get(f"{self._url}/-/ready").is_success
        except httpx.TransportError:
            return False

    def query(self, expression: str) -> dict[str, float]:
        """The present values of an expression, by job."""
        answer = httpx.get(f"{self._url}/api/v1/query", params={"query": expression}).json()
        return {each["metric"].get("job", ""): float(each["value"][1]) for each in answer["data"]["result"]}

    def firing(self) -> dict[str, list[Mapping[str, Any]]]:
        """The alerts that fire, by name."""
        alerts = httpx.get(f"{self._url}/api/v1/alerts").json()["data"]["alerts"]
        names = sorted({alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"})
        return {name: [alert for alert in alerts if alert["labels"]["alertname"] == name] for name in names}


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, int]) -> Iterator[Prometheus]:
    """A Prometheus on the project's configuration and rules, but in a hurry; `targets` are the jobs' ports."""
    program = shutil.which("prometheus")
    assert program is not None, "the tests need prometheus: run apt-get install prometheus"
    configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in configuration["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    rules = (MONITORING / "alerts.yml").read_text()
    (folder / "alerts.yml").write_text(re.sub(r"for: \w+", "for: 0s", rules))
    port = free_port()
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        running = Prometheus(f"http://127.0.0.1:{port}")
        eventually(running.is_ready)
        yield running
    finally:
        process.terminate()
        process.wait(30)
