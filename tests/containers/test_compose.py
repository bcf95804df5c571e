"""The compose file: by the specification's own schema, and by what it has to agree with."""

import re
import subprocess
from pathlib import Path
from shutil import copy

import pytest
import yaml

from tests.containers.files import CONTAINER, TOOLS, commands, compose, default, image, our_services
from worker.amqp.topology import ENABLE_PARTITIONS
from worker.config import api_tokens, secret_files
from worker.config.settings import Settings

PARTITIONS = "DEVICEOPS_PARTITIONS"
SECRET_SETTINGS = ("amqp_url", "database_url", "api_tokens")


def made_secrets(folder: Path) -> Path:
    """What secrets.sh makes, beside a copy of itself."""
    script = Path(copy(CONTAINER / "secrets.sh", folder))
    subprocess.run([script], check=True, capture_output=True)
    return folder / "secrets"


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_it_is_what_the_compose_specification_allows() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    command: list[str | Path] = [TOOLS / "check-jsonschema", *schema, CONTAINER / "compose.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_our_services_run_our_image_locked_down() -> None:
    services = our_services()
    assert set(services) == {"migrate", "worker", "api", "traffic"}
    for service in services.values():
        assert service["image"] == image()
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert (CONTAINER / service["build"]["context"] / service["build"]["dockerfile"]).samefile(
            CONTAINER / "Dockerfile"
        )
        assert set(service.get("command", ["run"])) <= commands() or service["entrypoint"] == ["sh", "-c"]


def test_nobody_gains_privileges_and_every_image_is_of_one_version() -> None:
    for service in compose()["services"].values():
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.search(r":v?\d+\.\d+", service["image"])


def test_ports_are_open_to_this_machine_only() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_whoever_is_waited_for_can_be_seen_to_be_healthy() -> None:
    services = compose()["services"]
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                has_its_own = "test" in services[name].get("healthcheck", {})
                assert has_its_own or name == "worker"  # whose image has one


def test_a_worker_has_the_time_that_it_takes_to_drain() -> None:
    worker = our_services()["worker"]
    assert float(worker["stop_grace_period"].removesuffix("s")) > default("drain_timeout")
    assert worker["deploy"]["replicas"] == 2


def test_every_file_that_is_mounted_is_there() -> None:
    mounts = [mount for service in compose()["services"].values() for mount in service.get("volumes", ())]
    files = [CONTAINER / mount.partition(":")[0] for mount in mounts if mount.startswith(".")]
    assert files
    assert [file for file in files if not file.is_file()] == []


def test_the_broker_has_the_plugin_for_partitions_beside_those_of_its_image() -> None:
    lines = (CONTAINER / "enabled_plugins").read_text().splitlines()
    [terms] = [line for line in lines if not line.startswith("%")]
    plugin = ENABLE_PARTITIONS.rpartition(" ")[2]
    assert terms == f"[{plugin},rabbitmq_management,rabbitmq_prometheus]."
    assert "./enabled_plugins:/etc/rabbitmq/enabled_plugins:ro" in compose()["services"]["rabbitmq"]["volumes"]
    partitions = our_services()["worker"]["environment"][PARTITIONS]
    assert partitions == f"${{{PARTITIONS}:-{default('partitions')}}}"


def test_prometheus_scrapes_the_services_where_they_answer() -> None:
    jobs = yaml.safe_load((CONTAINER / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["dns_sd_configs"][0] for job in jobs}
    services = our_services()
    assert {name: (target["names"], target["port"]) for name, target in targets.items()} == {
        "deviceops-worker": (["worker"], default("probe_port")),
        "deviceops-api": (["api"], default("http_probe_port")),
    }
    assert services["api"]["healthcheck"]["test"][-1] == str(default("http_probe_port"))
    assert services["api"]["ports"] == [f"127.0.0.1:{default('http_port')}:{default('http_port')}"]


def test_secrets_are_made_once_at_random_and_closed_to_others(tmp_path: Path) -> None:
    here, there = (tmp_path / name for name in ("here", "there"))
    for folder in (here, there):
        folder.mkdir()
    first = contents(made_secrets(here))
    assert contents(made_secrets(here)) == first
    others = contents(made_secrets(there))
    assert all(others[name] != content for name, content in first.items())
    assert (here / "secrets").stat().st_mode & 0o777 == 0o700


def test_every_secret_that_is_mounted_is_made(tmp_path: Path) -> None:
    made = set(contents(made_secrets(tmp_path)))
    declared = compose()["secrets"]
    used = {
        secret["source"] if isinstance(secret, dict) else secret
        for service in compose()["services"].values()
        for secret in service.get("secrets", ())
    }
    assert {Path(each["file"]).name for each in declared.values()} == set(declared)
    assert used == set(declared)
    assert made == {*declared, "api_token"}


def test_deviceops_reads_the_secrets_that_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made_secrets(tmp_path)
    monkeypatch.setattr(secret_files, "CONTAINER_SECRETS", folder)
    monkeypatch.chdir(tmp_path)
    for name in SECRET_SETTINGS:
        monkeypatch.delenv(secret_files.variable(name), raising=False)
    settings = Settings.load()
    services = compose()["services"]
    database, broker = settings.sqlalchemy_url, settings.amqp_url.get_secret_value()
    password = (folder / "postgresql_password").read_text().strip()
    environment = services["postgresql"]["environment"]
    assert (database.host, database.username, database.password) == (
        "postgresql",
        environment["POSTGRES_USER"],
        password,
    )
    configured = dict(line.split(" = ") for line in (folder / "rabbitmq_conf").read_text().splitlines())
    assert broker == f"amqp://{configured['default_user']}:{configured['default_pass']}@rabbitmq:5672/"
    caller = api_tokens.find(settings.api_tokens or {}, (folder / "api_token").read_text().strip())
    assert caller is not None
    assert caller.scopes == frozenset(api_tokens.Scope)
