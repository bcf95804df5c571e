"""The Kubernetes objects: by Kubernetes' own schemas, and by what they have to agree with."""

import re
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import kubernetes_validate
import pytest

from tests.containers import operators
from tests.containers.files import (
    KUBERNETES,
    OVERLAYS,
    TOP,
    Object,
    commands,
    containers,
    default,
    dockerfile,
    image,
    objects,
    of_kind,
    pods,
    pods_of,
    settings,
)
from tests.containers.restricted import violations
from worker.amqp.topology import Topology

VERSIONS = ("1.30", "1.37")
"""Of Kubernetes: from the oldest that is kept alive somewhere to the newest that there are schemas of."""

overlays = pytest.mark.parametrize("overlay", OVERLAYS)


@pytest.mark.parametrize("version", VERSIONS)
@overlays
def test_every_object_is_what_kubernetes_allows(overlay: str, version: str) -> None:
    for each in objects(overlay):
        if each["apiVersion"].startswith(operators.GROUPS):
            operators.validate(each, version)
        elif not each["apiVersion"].startswith("keda.sh/"):  # its schemas are in no package
            kubernetes_validate.validate(each, version, strict=True)


@overlays
def test_every_pod_meets_the_standard_that_the_namespace_enforces(overlay: str) -> None:
    [namespace] = of_kind("Namespace", overlay).values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    specifications = list(pods(overlay))
    assert [list(violations(pod)) for pod in specifications] == [[], [], [], []]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("securityContext", "runAsNonRoot"), False),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}),
        (("hostNetwork",), True),
        (("containers", 0, "securityContext", "capabilities"), {}),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("volumes",), [{"name": "host", "hostPath": {"path": "/"}}]),
    ],
)
def test_the_standard_refuses_what_it_is_there_to_refuse(path: tuple[Any, ...], value: object) -> None:
    pod: Any = next(pods())
    *way, last = path
    place = pod
    for step in way:
        place = place[step]
    place[last] = value
    assert list(violations(pod))


def every_container() -> Iterator[tuple[Object, Object]]:
    return ((pod, container) for pod in pods() for container in containers(pod))


def test_every_container_runs_a_command_of_our_image_as_its_user_and_writes_nowhere() -> None:
    [user] = [step["value"] for step in dockerfile().structure if step["instruction"] == "USER"]
    for pod, container in every_container():
        assert container["image"] == image()
        assert "command" not in container
        assert set(container["args"]) <= commands()
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
        assert not pod["automountServiceAccountToken"]
        assert not pod["enableServiceLinks"]
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def test_every_setting_exists_and_every_file_that_one_names_is_mounted() -> None:
    [common] = of_kind("ConfigMap").values()
    assert common["data"].keys() <= settings()
    for pod, container in every_container():
        [reference] = container["envFrom"]
        assert reference["configMapRef"]["name"] == common["metadata"]["name"]
        [volume], [mount] = pod["volumes"], container["volumeMounts"]
        mounted = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
        named = {variable["value"] for variable in container["env"]}
        assert {variable["name"] for variable in container["env"]} <= settings()
        assert named == mounted


def test_probes_ask_where_deviceops_answers() -> None:
    ports = {
        name: {port["name"]: port["containerPort"] for port in container["ports"]}
        for name, deployment in of_kind("Deployment").items()
        for container in deployment["spec"]["template"]["spec"]["containers"]
    }
    assert ports == {
        "deviceops-worker": {"probes": default("probe_port")},
        "deviceops-api": {"probes": default("http_probe_port"), "http": default("http_port")},
    }
    for deployment in of_kind("Deployment").values():
        template = deployment["spec"]["template"]
        [container] = template["spec"]["containers"]
        asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
        assert {name: get["path"] for name, get in asked.items()} == {
            "startup": "/livez",
            "liveness": "/livez",
            "readiness": "/readyz",
        }
        assert {get["port"] for get in asked.values()} == {"probes"}
        scraped = int(template["metadata"]["annotations"]["prometheus.io/port"])
        assert scraped == ports[deployment["metadata"]["name"]]["probes"]


def test_a_worker_has_the_time_that_it_takes_to_drain() -> None:
    worker = of_kind("Deployment")["deviceops-worker"]["spec"]["template"]["spec"]
    assert worker["terminationGracePeriodSeconds"] > default("drain_timeout")


def selected(labels: dict[str, str]) -> list[str]:
    component = "app.kubernetes.io/component"
    return sorted(pod["labels"][component] for pod in pods() if labels.items() <= pod["labels"].items())


def test_selectors_choose_the_pods_that_they_are_about() -> None:
    for kind in ("Deployment", "PodDisruptionBudget"):
        for name, each in of_kind(kind).items():
            assert [f"deviceops-{it}" for it in selected(each["spec"]["selector"]["matchLabels"])] == [name]
    [service] = of_kind("Service").values()
    assert selected(service["spec"]["selector"]) == ["api"]
    policies = of_kind("NetworkPolicy")
    chosen = {name: selected(each["spec"]["podSelector"]["matchLabels"]) for name, each in policies.items()}
    assert chosen == {"deviceops": ["api", "migrate", "upkeep", "worker"], "deviceops-api": ["api"]}


def test_keda_counts_the_queue_that_workers_read_and_alone_says_how_many_there_are() -> None:
    [scaled] = of_kind("ScaledObject", "autoscaling").values()
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["metadata"]["queueName"] == Topology(default("topology_prefix")).reports
    workers = of_kind("Deployment", "autoscaling")[scaled["spec"]["scaleTargetRef"]["name"]]
    assert "replicas" not in workers["spec"]
    authentication = of_kind("TriggerAuthentication", "autoscaling")[trigger["authenticationRef"]["name"]]
    [reference] = authentication["spec"]["secretTargetRef"]
    [volume] = workers["spec"]["template"]["spec"]["volumes"]
    assert reference["name"] == volume["secret"]["secretName"]
    assert reference["key"] in {item["key"] for item in volume["secret"]["items"]}


def test_the_overlay_that_the_readme_shows_is_built(tmp_path: Path) -> None:
    [shown] = re.findall(
        r"```yaml\n(.*?)```", (TOP / "deploy" / "kubernetes" / "README.md").read_text(), re.DOTALL
    )
    copytree(KUBERNETES / "base", tmp_path / "base")
    overlay = tmp_path / "ours"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(shown)
    made = objects(overlay)
    assert {container["image"] for pod in pods_of(made) for container in containers(pod)} == {
        f"registry.example/{image()}"
    }
    [settings_of_ours] = [each["data"] for each in made if each["kind"] == "ConfigMap"]
    assert settings_of_ours == {"DEVICEOPS_LOG_LEVEL": "INFO", "DEVICEOPS_KEEP_ACTIVITY": "90"}
