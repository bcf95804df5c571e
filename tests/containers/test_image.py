"""The image itself: every step of the Dockerfile is run, and what it makes is run as the compose file says."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tenacity import retry, stop_after_delay, wait_fixed

from tests.containers.files import CONTAINER, TOP, Object, default, dockerfile, image, of_kind, our_services
from tests.containers.podman import Engine
from tests.support.services.machine import free_port
from worker.config import api_tokens

PORTS = ("probe_port", "http_port", "http_probe_port")

eventually = retry(stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True)


class Deployment:
    """The services of the compose file, on the services of the tests."""

    def __init__(self, engine: Engine, settings: Mapping[str, str], secrets: Path) -> None:
        self.engine = engine
        self._settings = settings
        self._secrets = secrets
        # On the network of this machine, ports cannot be those that the compose file knows.
        self._ports = {str(default(name)): settings[name] for name in PORTS}

    def options(self, service: Object) -> Iterator[str]:
        """The options of podman that say of a container what the compose file says."""
        if service["read_only"]:
            yield from ("--read-only", "--read-only-tmpfs=false")
        yield from (f"--cap-drop={each}" for each in service["cap_drop"])
        yield from (f"--security-opt={each.partition(':')[0]}" for each in service["security_opt"])
        yield from (f"--volume={self._secrets / name}:/run/secrets/{name}:ro" for name in service["secrets"])
        yield from (f"--env=DEVICEOPS_{name.upper()}={value}" for name, value in self._settings.items())
        if "test" in service.get("healthcheck", {}):
            _, *words = service["healthcheck"]["test"]
            yield f"--health-cmd={json.dumps([self._ports.get(word, word) for word in words])}"

    def run(self, name: str, *words: str, detached: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a service of the compose file, or another command with what the service has."""
        service = our_services()[name]
        entrypoint = [f"--entrypoint={json.dumps(each)}" for each in (service.get("entrypoint"),) if each]
        command = words or [each.replace("$$", "$") for each in service.get("command", ())]
        how = ("--detach", "--name", name) if detached else ("--rm",)
        return self.engine("run", *how, *self.options(service), *entrypoint, image(), *command)

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """A service that is stopped in order at the end of the block, and must leave with 0."""
        self.run(name, detached=True)
        try:
            yield
        except BaseException:
            print(self.engine("logs", name, ok=False).stderr)  # noqa: T201  # else lost with the container
            raise
        grace = our_services()[name]["stop_grace_period"].removesuffix("s")
        self.engine("stop", "--time", grace, name)
        assert self.engine.inspect(name)["State"]["ExitCode"] == 0

    def is_healthy(self, name: str) -> bool:
        """What the health check says that the engine runs."""
        return self.engine("healthcheck", "run", name, ok=False).returncode == 0

    @eventually
    def wait_until_healthy(self, name: str) -> None:
        assert self.is_healthy(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal past the engine, as a thing that befalls the process."""
        os.kill(self.engine.inspect(name)["State"]["Pid"], number)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine that is gone after the test, with all that it made."""
    with Engine(tmp_path) as engine:
        yield engine


@pytest.mark.timeout(900)
def test_the_image_is_built_and_runs_locked_down_as_the_compose_file_has_it(
    full: bool,
    engine: Engine,
    new_empty_postgresql_database: str,
    amqp_url: str,
    topology_prefix: str,
    tmp_path: Path,
) -> None:
    if not full:
        pytest.skip("takes minutes: with --full")
    engine.make_base(dockerfile().baseimage)
    engine.build(image(), CONTAINER / "Dockerfile", TOP, *engine.pip_configuration())
    ports = {name: free_port() for name in PORTS}
    token, made = api_tokens.create(frozenset(api_tokens.Scope))
    secrets = {
        "amqp_url": amqp_url,
        "database_url": new_empty_postgresql_database,
        "api_tokens": json.dumps({"tests": made.model_dump(mode="json")}),
    }
    for name, value in secrets.items():
        (tmp_path / f"deviceops_{name}").write_text(value + "\n")
    settings = {"topology_prefix": topology_prefix, **{name: str(port) for name, port in ports.items()}}
    deployment = Deployment(engine, settings, tmp_path)

    the_user_is_numbered_and_nothing_is_in_the_image_that_should_not_be(deployment)
    assert "schema" in deployment.run("migrate").stdout
    a_worker_consumes_tells_its_health_and_drains(deployment, ports["probe_port"])
    assert "all counters agree" in deployment.run("migrate", "recount").stdout
    assert deployment.run("migrate", "prune").stdout
    the_api_answers_who_has_a_token(deployment, ports["http_port"], token)
    sqlite_is_kept_in_the_one_folder_that_is_writable(engine, tmp_path)


def the_user_is_numbered_and_nothing_is_in_the_image_that_should_not_be(deployment: Deployment) -> None:
    known = deployment.engine.inspect(image())
    assert known["Config"]["User"] == "10001:10001"
    assert known["Config"]["StopSignal"] == "SIGTERM"
    question = "os.getuid(), os.path.exists('/src'), importlib.util.find_spec('pip')"
    found = deployment.engine(
        "run", "--rm", "--entrypoint=python", image(), "-c", f"import importlib.util, os; print({question})"
    )
    assert found.stdout.split() == ["10001", "False", "None"]


def a_worker_consumes_tells_its_health_and_drains(deployment: Deployment, port: int) -> None:
    probes = of_kind("Deployment")["deviceops-worker"]["spec"]["template"]["spec"]["containers"][0]
    with deployment.running("worker"):
        deployment.wait_until_healthy("worker")
        for name in ("startup", "liveness", "readiness"):
            path = probes[f"{name}Probe"]["httpGet"]["path"]
            assert eventually(httpx.get)(f"http://127.0.0.1:{port}{path}").status_code == httpx.codes.OK
        deployment.run("traffic", detached=True)
        reports_are_counted(port)
        deployment.engine("rm", "--force", "--time", "0", "traffic")
        deployment.signal("worker", signal.SIGSTOP)
        assert not deployment.is_healthy("worker")
        deployment.signal("worker", signal.SIGCONT)
        deployment.wait_until_healthy("worker")


@eventually
def reports_are_counted(port: int) -> None:
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    values = [float(line.split()[-1]) for line in lines if line.startswith("deviceops_reports_total{")]
    assert sum(values) > 1000


def the_api_answers_who_has_a_token(deployment: Deployment, port: int, token: str) -> None:
    with deployment.running("api"):
        deployment.wait_until_healthy("api")
        url = f"http://127.0.0.1:{port}/v0/operations/"
        assert httpx.get(url).status_code == httpx.codes.UNAUTHORIZED
        answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == httpx.codes.OK
        assert answer.json()["count"] >= 1


def sqlite_is_kept_in_the_one_folder_that_is_writable(engine: Engine, folder: Path) -> None:
    locked = ("run", "--rm", "--no-healthcheck", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL")
    refused = engine(*locked, image(), "migrate", ok=False)
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    state = folder / "state"
    state.mkdir()
    os.chown(state, 10001, 10001)
    engine(*locked, f"--volume={state}:/var/lib/deviceops", image(), "migrate")
    assert [path.name for path in state.iterdir()] == ["deviceops.db"]
