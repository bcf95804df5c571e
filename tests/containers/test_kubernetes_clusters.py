"""The overlay with RabbitMQ's and PostgreSQL's operators: what its objects have to agree with."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest
from pydantic import SecretStr, ValidationError

from tests.containers import operators
from tests.containers.files import Object, containers, of_kind, pods, settings
from worker.config.urls import amqp_url, database_url

OVERLAY = "clusters"
MADE = {
    # What the operators make, as their documentation has it: https://www.rabbitmq.com/kubernetes/operator/using-operator
    # and https://cloudnative-pg.io/documentation/current/applications
    "rabbitmq-default-user": {"connection_string": "amqp://default_user_x:secret@rabbitmq.deviceops.svc:5672/"},
    "postgresql-app": {"uri": "postgresql://deviceops:secret@postgresql-rw.deviceops:5432/deviceops"},
    "postgresql-ca": {"ca.crt": ""},
    # What deploy/kubernetes/README.md has people make.
    "deviceops": {"api_tokens": ""},
}
"""Secrets and their keys, with an example of each address."""


def only(kind: str) -> Object:
    """The one object of a kind."""
    [each] = of_kind(kind, OVERLAY).values()
    return each


def mounted(pod: Object) -> Iterator[tuple[str, str, str]]:
    """Of each file that a pod mounts: its path, and the Secret and the key that it comes from."""
    [volume] = pod["volumes"]
    for source in volume["projected"]["sources"]:
        for item in source["secret"]["items"]:
            yield item["path"], source["secret"]["name"], item["key"]


def test_every_file_that_a_setting_names_comes_from_a_secret_that_is_made() -> None:
    [common] = (each["data"] for each in of_kind("ConfigMap", OVERLAY).values())
    assert common.keys() <= settings()
    for pod in pods(OVERLAY):
        files = {f"/etc/deviceops/{path}": (secret, key) for path, secret, key in mounted(pod)}
        for container in containers(pod):
            [mount] = container["volumeMounts"]
            assert mount["mountPath"] == "/etc/deviceops"
            named = {each["value"] for each in container["env"]} | {common["DEVICEOPS_DATABASE_CA_FILE"]}
            assert named == files.keys()
        assert all(key in MADE[secret] for secret, key in files.values())


def test_deviceops_reads_the_addresses_that_the_operators_make() -> None:
    assert amqp_url(SecretStr(MADE["rabbitmq-default-user"]["connection_string"]))
    assert database_url(SecretStr(MADE["postgresql-app"]["uri"]))


def test_secrets_and_addresses_are_named_after_the_clusters() -> None:
    broker, database = only("RabbitmqCluster"), only("Cluster")
    name, initdb = database["metadata"]["name"], database["spec"]["bootstrap"]["initdb"]
    assert {f"{broker['metadata']['name']}-default-user", f"{name}-app", f"{name}-ca"} <= MADE.keys()
    assert f"@{broker['metadata']['name']}.deviceops.svc:" in MADE["rabbitmq-default-user"]["connection_string"]
    expected = f"postgresql://{initdb['owner']}:secret@{name}-rw.deviceops:5432/{initdb['database']}"
    assert MADE["postgresql-app"]["uri"] == expected


def test_one_machine_that_fails_takes_one_node_and_one_instance_and_loses_no_commit() -> None:
    broker, database = only("RabbitmqCluster")["spec"], only("Cluster")["spec"]
    labels = {"app.kubernetes.io/name": only("RabbitmqCluster")["metadata"]["name"]}
    [apart] = broker["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert broker["replicas"] == 3
    assert apart == {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    budget = of_kind("PodDisruptionBudget", OVERLAY)[labels["app.kubernetes.io/name"]]["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    assert database["instances"] == 3
    assert database["postgresql"]["synchronous"] == {
        "method": "any",
        "number": 1,
        "dataDurability": "required",
        "failoverQuorum": True,
    }


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RabbitmqCluster", ("replica",), 3),
        ("RabbitmqCluster", ("persistence", "storage"), 20),
        ("RabbitmqCluster", ("rabbitmq", "additionalConfig"), "cluster_partition_handling: pause_minority\n"),
        ("RabbitmqCluster", ("affinity", "podAntiAffinity"), {"required": []}),
        ("Cluster", ("instances",), "3"),
        ("Cluster", ("postgresql", "synchronous", "method"), "ANY"),
        ("Cluster", ("postgresql", "synchronous", "number"), 0),
        ("Cluster", ("postgresql", "synchronous", "standbys"), []),
        ("Cluster", ("resources", "limits"), {"memory": []}),
    ],
)
def test_what_an_operator_would_refuse_is_refused(kind: str, path: tuple[str, ...], value: object) -> None:
    broken: Any = deepcopy(only(kind))
    place = broken["spec"]
    *way, last = path
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises((ValidationError, kubernetes_validate.ValidationError)):
        operators.validate(broken, "1.37")
