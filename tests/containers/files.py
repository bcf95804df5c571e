"""What `deploy/container/` and `deploy/kubernetes/` say, as their own tools read it."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from dockerfile_parse import DockerfileParser
from typer.core import TyperGroup
from typer.main import get_command

from tests.support.services.debian import debian_13
from worker.cli import app
from worker.config.secret_files import SUFFIX, variable
from worker.config.settings import Settings

TOP = Path(__file__).parents[2]
CONTAINER = TOP / "deploy" / "container"
KUBERNETES = TOP / "deploy" / "kubernetes"
OVERLAYS = ("base", "autoscaling", "clusters")
TOOLS = Path(sys.executable).parent

Object = dict[str, Any]


def project() -> Object:
    """The project's own description of itself."""
    described: Object = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    return described


def image() -> str:
    """What our image is called where it is used."""
    described = project()
    return f"{described['name']}:{described['version']}"


def dockerfile() -> DockerfileParser:
    """The Dockerfile, taken apart."""
    return DockerfileParser(str(CONTAINER / "Dockerfile"), cache_content=True)


def compose(name: str = "compose.yaml") -> Object:
    """A compose file, its shared parts put in their places."""
    read: Object = yaml.safe_load((CONTAINER / name).read_text())
    return read


def merged(folder: Path, *names: str) -> Object:
    """What Docker Compose, Debian 13's, makes of compose files in a folder."""
    program = debian_13() / "usr/libexec/docker/cli-plugins/docker-compose"
    files = [word for name in names for word in ("--file", str(folder / name))]
    command: list[str | Path] = [program, *files, "config", "--format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read: Object = json.loads(done.stdout)
    return read


def our_services() -> dict[str, Object]:
    """The services of the compose file that run deviceops."""
    return {name: each for name, each in compose()["services"].items() if "build" in each}


def objects(overlay: str | Path) -> list[Object]:
    """What kubectl makes of a kustomization."""
    done = subprocess.run(
        [TOOLS / "kubectl", "kustomize", KUBERNETES / overlay], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(kind: str, overlay: str = "base") -> dict[str, Object]:
    """The objects of a kind, by name."""
    return {each["metadata"]["name"]: each for each in objects(overlay) if each["kind"] == kind}


def pods(overlay: str = "base") -> Iterator[Object]:
    """The specifications of the pods of one of our overlays."""
    return pods_of(objects(overlay))


def pods_of(made: list[Object]) -> Iterator[Object]:
    """The pods' specifications, with the labels that each carries under `labels`."""
    for each in made:
        template = each.get("spec", {}).get("jobTemplate", each).get("spec", {}).get("template")
        if template is not None:
            yield {**template["spec"], "labels": template["metadata"]["labels"]}


def containers(pod: Object) -> list[Object]:
    """All containers of a pod."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


def settings() -> set[str]:
    """Every variable that deviceops reads."""
    values = {variable(name) for name in Settings.model_fields}
    return values | {name + SUFFIX for name in values}


def default(name: str) -> Any:
    """What a setting is when nobody sets it."""
    return Settings.model_fields[name].default


def commands() -> set[str]:
    """Every command that deviceops has."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return set(group.commands)
