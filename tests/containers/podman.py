"""A container engine for a test: Debian's podman, with a storage of its own, which it takes away in the end.

No registry is needed: what the Dockerfile is based on is made from Debian's packages, under the name that the
Dockerfile has for it. That is the same Debian and the same minor version of Python, but Debian's build of it.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path
from typing import Any, Self

import pydantic_core

PACKAGES = ("ca-certificates", "netbase", "python3", "python3-pip", "python3-venv", "tzdata")
LIKE_THE_OFFICIAL_IMAGE = """
FROM localhost/debian
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
RUN ln -s /usr/bin/python3 /usr/local/bin/python && ln -s /usr/bin/pip3 /usr/local/bin/pip
"""
CONFIGURATION = """
[containers]
netns = "host"
# Not the engine's own: a limit above that of this process could not be set everywhere.
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{folder}/tmp"
volume_path = "{folder}/volumes"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""
PIP_OPTIONS = ("cert", "default-timeout", "extra-index-url", "index-url", "proxy", "trusted-host")
"""What pip has to be told in a container too, where it has been told so here."""


class Engine:
    """Builds images and runs containers, on the network of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(self._written("containers.conf", CONFIGURATION)),
            "CONTAINERS_STORAGE_CONF": str(self._written("storage.conf", STORAGE)),
        }

    def _written(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text.format(folder=self._folder))
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self("rm", "--all", "--force", "--time", "0")
        self("rmi", "--all", "--force")
        subprocess.run(["umount", "--quiet", self._folder / "images" / "overlay"], check=False)

    def __call__(self, *arguments: str | Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of podman's, which must succeed unless it is said that it need not."""
        done = subprocess.run(
            ["podman", *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not ok, f"podman {arguments[0]}: {done.stdout}\n{done.stderr}"
        return done

    def make_base(self, name: str) -> None:
        """Make the image python:VERSION-slim-SUITE of Debian's packages."""
        found = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-(\w+)", name)
        assert found is not None
        version, suite = found.groups()
        archive, recipe = self._folder / "debian.tar", self._folder / "Dockerfile"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, archive],
            check=True,
        )
        self("import", archive, "localhost/debian")
        archive.unlink()
        recipe.write_text(LIKE_THE_OFFICIAL_IMAGE)
        self.build(f"docker.io/library/{name}", recipe, self._folder)
        said = self("run", "--rm", f"docker.io/library/{name}", "python", "--version").stdout
        assert said.startswith(f"Python {version}."), said

    def build(self, name: str, dockerfile: Path, context: Path, *options: str | Path) -> None:
        """Build an image as Docker would, each step in a root of its own."""
        isolated = ("--isolation", "chroot", "--pull-never", "--format", "docker")
        self("build", *isolated, *options, "--tag", name, "--file", dockerfile, context)

    def pip_configuration(self) -> Sequence[str | Path]:
        """Options of build() that hand over how pip reaches its index here."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        ).stdout
        given = {
            name.rpartition(".")[2]: ast.literal_eval(value)
            for name, _, value in (line.partition("=") for line in listed.splitlines())
        }
        parser = ConfigParser(interpolation=None)
        parser["global"] = {name: given[name] for name in PIP_OPTIONS if name in given}
        file = self._folder / "pip.conf"
        with file.open("w") as stream:
            parser.write(stream)
        mounts = ["--volume", f"{given['cert']}:{given['cert']}:ro"] if "cert" in given else []
        return ["--secret", f"id=pip_conf,src={file}", *mounts]

    def inspect(self, name: str) -> Any:
        """What the engine knows of an image or a container."""
        [known] = pydantic_core.from_json(self("inspect", name).stdout)
        return known
