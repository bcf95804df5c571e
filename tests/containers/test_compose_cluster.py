"""The compose file for clusters, on top of the other one: as Docker Compose reads both, and what has to agree."""

import re
import subprocess
from pathlib import Path
from shutil import copy, copytree

import pytest

from tests.containers.files import CONTAINER, TOOLS, Object, compose, merged, of_kind
from worker.config import postgresql_url, secret_files
from worker.config.settings import Settings

FILES = ("compose.yaml", "compose.cluster.yaml")
BROKERS = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")
DATABASES = ("postgresql", "postgresql-2", "postgresql-3")
SHARED = (
    "image",
    "restart",
    "security_opt",
    "healthcheck",
    "entrypoint",
    "command",
    "stop_signal",
    "user",
)


@pytest.fixture(scope="module")
def services() -> Object:
    """The services, as Docker Compose has them of both files."""
    read: Object = merged(CONTAINER, *FILES)["services"]
    return read


def test_it_is_what_the_compose_specification_allows() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    command: list[str | Path] = [TOOLS / "check-jsonschema", *schema, CONTAINER / FILES[1]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("files", [FILES[:1], FILES])
def test_docker_compose_reads_them(files: tuple[str, ...]) -> None:
    read = merged(CONTAINER, *files)
    assert read["name"] == compose(files[-1])["name"]
    assert set(compose()["services"]) <= set(read["services"])


@pytest.mark.parametrize("names", [BROKERS, DATABASES])
def test_the_servers_of_a_cluster_differ_by_their_names_and_volumes_only(
    services: Object, names: tuple[str, ...]
) -> None:
    first = services[names[0]]
    for name in names:
        service = services[name]
        assert service["hostname"] == name
        assert {key: service.get(key) for key in SHARED} == {key: first.get(key) for key in SHARED}
        assert [each["source"] for each in service["volumes"] if each["type"] == "volume"] == [name]
        mounted = {each["source"] for each in service["secrets"]}
        assert mounted == {each["source"] for each in first["secrets"]}


def test_every_broker_of_a_cluster_has_the_plugins_of_a_single_one(services: Object) -> None:
    mounts = [each for name in BROKERS for each in services[name]["volumes"] if each["type"] == "bind"]
    plugins = [each["source"] for each in mounts if each["target"] == "/etc/rabbitmq/enabled_plugins"]
    assert plugins == [str(CONTAINER / "enabled_plugins")] * len(BROKERS)


def test_every_file_that_is_mounted_is_there(services: Object) -> None:
    mounts = [each for service in services.values() for each in service.get("volumes", ())]
    files = [Path(each["source"]) for each in mounts if each["type"] == "bind"]
    assert CONTAINER / "cluster/rabbitmq.conf" in files
    assert [file for file in files if not file.is_file()] == []


def test_workers_come_when_the_queue_can_have_a_replica_on_every_broker(services: Object) -> None:
    waited_for = services["worker"]["depends_on"]
    assert {name for name, wait in waited_for.items() if wait["condition"] == "service_healthy"} == set(BROKERS)


def test_brokers_name_each_other_and_standbys_are_named_by_the_primary() -> None:
    lines = (CONTAINER / "cluster/rabbitmq.conf").read_text().splitlines()
    configured = dict(line.split(" = ") for line in lines if not line.startswith("#"))
    nodes = [configured[f"cluster_formation.classic_config.nodes.{number}"] for number in (1, 2, 3)]
    assert nodes == [f"rabbit@{name}" for name in BROKERS]
    assert configured["cluster_partition_handling"] == "pause_minority"
    [synchronous] = re.findall(r"'(ANY 1 .*)'", (CONTAINER / "cluster/replication.sh").read_text())
    quoted = ", ".join(f'"{name}"' for name in DATABASES)
    assert synchronous == f"ANY 1 ({quoted})"
    assert f"host={','.join(DATABASES)} " in (CONTAINER / "cluster/postgresql.sh").read_text()


def test_brokers_are_set_up_as_those_of_the_kubernetes_overlay() -> None:
    [cluster] = of_kind("RabbitmqCluster", "clusters").values()
    theirs = cluster["spec"]["rabbitmq"]["additionalConfig"].splitlines()
    ours = (CONTAINER / "cluster/rabbitmq.conf").read_text().splitlines()
    assert [line for line in theirs if not line.startswith("disk_free_limit")] == [
        line for line in ours if line.startswith(("cluster_partition_handling", "quorum_queue."))
    ]


def test_secrets_are_made_and_addresses_name_every_server(tmp_path: Path) -> None:
    folder = copytree(CONTAINER, tmp_path / "container", ignore=lambda *_: {"secrets"})
    subprocess.run([folder / "secrets.sh"], check=True, capture_output=True)
    before = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
    for _ in range(2):
        subprocess.run([folder / "secrets.sh", "cluster"], check=True, capture_output=True)
    made = {path.name: path.read_text().strip() for path in (folder / "secrets").iterdir()}

    assert {name: made[name] for name in before} == {name: text.strip() for name, text in before.items()}
    declared = merged(folder, *FILES)["secrets"]
    assert {Path(each["file"]).name for each in declared.values()} <= made.keys()
    assert Path(declared["deviceops_amqp_url"]["file"]).name == "cluster_amqp_url"
    user, _, hosts = made["cluster_amqp_url"].rpartition("@")
    assert made["deviceops_amqp_url"].startswith(f"{user}@")
    assert hosts == f"{','.join(f'{name}:5672' for name in BROKERS)}/"
    user, _, hosts = made["cluster_database_url"].rpartition("@")
    assert made["deviceops_database_url"].startswith(f"{user}@")
    assert hosts == f"{','.join(DATABASES)}/deviceops"
    assert made["erlang_cookie"] != made["replication_password"]


def test_deviceops_reads_the_addresses_that_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copytree(CONTAINER, tmp_path / "container", ignore=lambda *_: {"secrets"})
    subprocess.run([folder / "secrets.sh", "cluster"], check=True, capture_output=True)
    declared = merged(folder, *FILES)["secrets"]
    mounted = tmp_path / "secrets"
    mounted.mkdir()
    for name in ("deviceops_amqp_url", "deviceops_database_url"):
        copy(declared[name]["file"], mounted / name)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(secret_files, "CONTAINER_SECRETS", mounted)
    monkeypatch.chdir(tmp_path)

    settings = Settings.load()

    assert [(node.host, node.port) for node in settings.brokers] == [(name, 5672) for name in BROKERS]
    target = postgresql_url.target(settings.sqlalchemy_url)
    assert [(server.host, server.port) for server in target.servers] == [(name, 5432) for name in DATABASES]
    assert target.session_attributes == "read-write"
