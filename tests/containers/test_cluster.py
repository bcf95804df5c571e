"""The compose file for clusters, run, with the commands of the page about clusters."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import httpx
import pytest

from tests.containers.composed import Composed
from tests.containers.files import CONTAINER
from tests.support.brokering import eventually, report, until_logged
from tests.support.command import Deviceops
from tests.support.documents import block
from tests.support.watching import Running, running

PAGE = "deploy/clusters.md"
FILES = ("compose.yaml", "compose.cluster.yaml")
BROKERS = ("rabbitmq", "rabbitmq-2", "rabbitmq-3")
DATABASES = ("postgresql", "postgresql-2", "postgresql-3")
PATIENCE = 120
"""Seconds in which a cluster has to be whole again."""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_servers_of_the_compose_file_fail_over_by_the_commands_of_the_page(full: bool, tmp_path: Path) -> None:
    if not full:
        pytest.skip("takes minutes: with --full")
    deploy = tmp_path / "container"
    copytree(CONTAINER, deploy, ignore=lambda *_: {"secrets"})
    subprocess.run([deploy / "secrets.sh", "cluster"], check=True, capture_output=True)
    with Composed(deploy, FILES, BROKERS + DATABASES) as servers:
        servers.up(*BROKERS, *DATABASES)
        deviceops = with_addresses_of(deploy, servers)
        deviceops.out("migrate")

        brokers_form_a_cluster_and_commits_wait_for_one_of_two_standbys(servers)
        queues_have_a_replica_on_every_broker(servers, deviceops)
        a_broker_is_restarted_while_a_worker_goes_on(servers, deviceops)
        a_worker_goes_to_another_broker_when_its_own_is_killed(servers, deviceops)
        a_worker_waits_while_most_brokers_are_away(servers, deviceops)
        a_broker_whose_disk_is_gone_is_replaced(servers)
        a_worker_waits_for_the_promotion_of_a_standby_and_the_old_primary_becomes_one(servers, deviceops)
        commits_wait_while_no_standby_is_there(servers, deviceops)
        all_come_back_as_they_were_after_all_were_stopped(servers)


def with_addresses_of(deploy: Path, servers: Composed) -> Deviceops:
    """The command with the addresses that the compose file has for it."""
    made = deploy / "secrets"
    secrets = {name: (made / f"cluster_{name}").read_text().strip() for name in ("amqp_url", "database_url")}
    knowing = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')
    return replace(Deviceops(deploy, secrets), wrapper=(*knowing, f"{servers.hosts}"))


def brokers_form_a_cluster_and_commits_wait_for_one_of_two_standbys(servers: Composed) -> None:
    eventually(lambda: are_whole(servers), PATIENCE)
    shown = servers.type(block(PAGE, "postgresql-state"))
    assert set(re.findall(r"(postgresql-\d) *\| (\w+) *\| (\w+)", shown)) == {
        ("postgresql-2", "streaming", "quorum"),
        ("postgresql-3", "streaming", "quorum"),
    }


def queues_have_a_replica_on_every_broker(servers: Composed, deviceops: Deviceops) -> None:
    with running(deviceops) as worker:
        has_logged(worker, "consuming")
        report_devices(deviceops, 20)
        eventually(lambda: count(servers) == 20, PATIENCE)
        assert readiness(worker) == (httpx.codes.OK, set())
        assert "ready" in deviceops.out("check")
    assert are_whole(servers)
    shown = servers.type(block(PAGE, "rabbitmq-state"))
    assert re.search(r"device-operations\.reports\squorum\s", shown)


def a_broker_is_restarted_while_a_worker_goes_on(servers: Composed, deviceops: Deviceops) -> None:
    stored = count(servers)
    with running(deviceops) as worker:
        has_logged(worker, "consuming")
        servers.type(block(PAGE, "rabbitmq-restart"))
        report_devices(deviceops, 5)
        eventually(lambda: count(servers) == stored + 5, PATIENCE)
    eventually(lambda: are_whole(servers), PATIENCE)


def a_worker_goes_to_another_broker_when_its_own_is_killed(servers: Composed, deviceops: Deviceops) -> None:
    stored = count(servers)
    with running(deviceops) as worker:
        broker = has_logged(worker, "consuming")["broker"]
        [name] = {name for name in BROKERS if f"@{name}:5672/" in broker}
        servers[name].kill()
        assert has_logged(worker, "broker connection lost, reconnecting", "consuming")["broker"] != broker
        report_devices(deviceops, 5)
        eventually(lambda: count(servers) == stored + 5, PATIENCE)
    servers.up(name)
    eventually(lambda: are_whole(servers), PATIENCE)


def a_worker_waits_while_most_brokers_are_away(servers: Composed, deviceops: Deviceops) -> None:
    with running(deviceops) as worker:
        has_logged(worker, "consuming")
        for name in BROKERS[1:]:
            servers[name].kill()
        has_logged(worker, "broker connection lost, reconnecting")
        assert readiness(worker) == (httpx.codes.SERVICE_UNAVAILABLE, {"broker"})
        servers.up(*BROKERS)
        has_logged(worker, "consuming")
    eventually(lambda: are_whole(servers), PATIENCE)


def a_broker_whose_disk_is_gone_is_replaced(servers: Composed) -> None:
    servers["rabbitmq-3"].kill()
    servers.type(block(PAGE, "rabbitmq-replace"))
    assert are_whole(servers)


def a_worker_waits_for_the_promotion_of_a_standby_and_the_old_primary_becomes_one(
    servers: Composed, deviceops: Deviceops
) -> None:
    stored = count(servers)
    with running(deviceops) as worker:
        has_logged(worker, "consuming")
        servers["postgresql"].kill()
        report_devices(deviceops, 5)
        has_logged(worker, "database unavailable, paused")
        assert readiness(worker) == (httpx.codes.SERVICE_UNAVAILABLE, {"database"})

        written = servers.type(block(PAGE, "postgresql-failover"))

        assert len(set(re.findall(r"\d+/[\dA-F]+", written))) == 1
        has_logged(worker, "database available, resumed")
        eventually(lambda: count(servers) == stored + 5, PATIENCE)
    assert primary(servers) == "postgresql-2"
    servers.type(block(PAGE, "postgresql-rebuild"))
    eventually(lambda: are_whole(servers), PATIENCE)
    assert deviceops.document("recount")["drifted"] == []


def commits_wait_while_no_standby_is_there(servers: Composed, deviceops: Deviceops) -> None:
    stored, away = count(servers), set(DATABASES) - {primary(servers)}
    with running(deviceops.with_settings(database_timeout="2")) as worker:
        has_logged(worker, "consuming")
        for name in away:
            servers[name].stop()
        report_devices(deviceops, 5)
        has_logged(worker, "database unavailable, paused")
        assert readiness(worker) == (httpx.codes.SERVICE_UNAVAILABLE, {"database"})
        servers.up(*away)
        has_logged(worker, "database available, resumed")
        eventually(lambda: count(servers) == stored + 5, PATIENCE)
    eventually(lambda: are_whole(servers), PATIENCE)


def all_come_back_as_they_were_after_all_were_stopped(servers: Composed) -> None:
    stored, able_to_write = count(servers), primary(servers)
    for name in BROKERS + DATABASES:
        servers[name].stop()
    servers.up(*BROKERS, *DATABASES)
    eventually(lambda: are_whole(servers), PATIENCE)
    assert (count(servers), primary(servers)) == (stored, able_to_write)


def has_logged(worker: Running, *events: str) -> dict[str, str]:
    """Wait until a worker has logged events, one after the other; the last one's line."""
    lines = [until_logged(worker.process, f'"{event}"') for event in events]
    logged: dict[str, str] = json.loads(lines[-1])
    return logged


def readiness(worker: Running) -> tuple[int, set[str]]:
    """Whether a worker is ready, and what it waits for."""
    answer = worker.get("readyz")
    return answer.status_code, set(answer.json().get("reasons", ()))


def report_devices(deviceops: Deviceops, number: int) -> None:
    """Have reports of so many new device operations be confirmed by a broker."""
    deviceops.out("publish", "-", lines="".join(f"{json.dumps(report())}\n" for _ in range(number)))


def sql(servers: Composed, name: str, query: str) -> str:
    """What a query at one of the servers gives."""
    return servers[name].out("psql", "--username=deviceops", "-AtX", f"--command={query}").strip()


def primary(servers: Composed) -> str:
    """The server that can write."""
    running = (name for name in DATABASES if servers[name].is_running)
    [name] = (name for name in running if sql(servers, name, "SELECT pg_is_in_recovery()") == "f")
    return name


def count(servers: Composed) -> int:
    """The device operations that are stored."""
    return int(sql(servers, primary(servers), "SELECT count(*) FROM device_operations"))


def standbys(servers: Composed) -> dict[str, str]:
    """The standbys that stream what the primary writes, and whether a commit waits for them."""
    query = "SELECT application_name, sync_state FROM pg_stat_replication WHERE state = 'streaming'"
    return dict(row.split("|") for row in sql(servers, primary(servers), query).split())


def are_whole(servers: Composed) -> bool:
    """Whether all brokers are in the cluster, with a replica of each queue, and all standbys stream."""
    broker = servers["rabbitmq"]
    status = json.loads(broker.out("rabbitmqctl", "--silent", "cluster_status", "--formatter=json"))
    listed = broker.out("rabbitmqctl", "--silent", "list_queues", "name", "online", "--formatter=json")
    nodes = {f"rabbit@{name}" for name in BROKERS}
    return (
        set(status["running_nodes"]) == nodes
        and all(set(queue["online"]) == nodes for queue in json.loads(listed))
        and standbys(servers) == dict.fromkeys(set(DATABASES) - {primary(servers)}, "quorum")
    )
