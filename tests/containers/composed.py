"""Services of the compose files as processes, each with a root, a name and an address of its own, as a container.

No registry is needed: in the place of the official images are Debian 13's packages and, in ENTRYPOINTS, what those
images do at their start, as their documentation says. All else is as Docker Compose reads it from the files.
"""

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Self

from tests.containers.files import Object, merged
from tests.support.services.debian import debian_13
from tests.support.services.network import Network, Place

START_SECONDS = 180
STOP_SECONDS = 60
DATA = {"rabbitmq": ("/var/lib/rabbitmq", "rabbitmq"), "postgres": ("/var/lib/postgresql/data", "postgres")}
"""Of an image: the folder of its volume, and the account that it belongs to."""
PATH = "/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENTRYPOINTS = {
    "rabbitmq": """#!/bin/sh
set -eu
chown -R rabbitmq: /var/lib/rabbitmq /etc/rabbitmq
program=/usr/lib/rabbitmq/bin/$1
exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups env HOME=/var/lib/rabbitmq RABBITMQ_LOGS=- "$program"
""",
    "postgres": """#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --no-locale --encoding=UTF8
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    pg_ctl start --wait --options="-c listen_addresses=''"
    createdb --username="$POSTGRES_USER" "$POSTGRES_USER"
    for script in /docker-entrypoint-initdb.d/*; do "$script"; done
    pg_ctl stop --wait
fi
exec "$@"
""",
}
_ENTER = """
set -eu
mount -t overlay overlay -o "lowerdir=$DEBIAN,upperdir=$PLACE/upper,workdir=$PLACE/work" "$PLACE/root"
hostname "$NAME"
mount -t proc proc "$PLACE/root/proc"
mount --rbind /dev "$PLACE/root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$PLACE/root/tmp"
while read -r source target; do
    mkdir -p "$PLACE/root$(dirname "$target")"
    if [ -d "$source" ]; then mkdir -p "$PLACE/root$target"; else touch "$PLACE/root$target"; fi
    mount --bind "$source" "$PLACE/root$target"
done <"$PLACE/mounts"
exec chroot "$PLACE/root" "$@"
"""
_PREPARE = """
install --directory --owner="$0" "$1" /var/run/postgresql
shift
exec "$@"
"""


class Service:
    """A service of a compose file. Its volume stays until it is removed."""

    def __init__(self, described: Object, secrets: Object, place: Place, folder: Path, hosts: Path) -> None:
        self.place = place
        self._hosts = hosts
        self._described, self._folder = described, folder
        self._image = described["image"].partition(":")[0]
        self._data, self._account = DATA[self._image]
        self._secrets = secrets
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"
        for part in ("upper", "work", "root", "volume"):
            (folder / part).mkdir(parents=True)

    def _mounts(self) -> str:
        entrypoint = self._folder / "docker-entrypoint.sh"
        entrypoint.write_text(ENTRYPOINTS[self._image])
        entrypoint.chmod(0o755)
        mounts = {"/usr/local/bin/docker-entrypoint.sh": entrypoint, "/etc/hosts": self._hosts}
        for volume in self._described["volumes"]:
            mounts[volume["target"]] = self._folder / "volume" if volume["type"] == "volume" else volume["source"]
        for secret in self._described["secrets"]:
            mounts[secret["target"]] = self._secrets[secret["source"]]["file"]
        return "".join(f"{source} {target}\n" for target, source in mounts.items())

    def _environment(self) -> dict[str, str]:
        return {"PATH": PATH, "LANG": "C.UTF-8", **self._described.get("environment", {})}

    def _as_user(self, *command: str) -> list[str]:
        user = self._described.get("user")
        return [*(("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups") if user else ()), *command]

    def _enter(self, *command: str) -> list[str]:
        (self._folder / "mounts").write_text(self._mounts())
        (self._folder / "volume").chmod(0o777)
        inside = ["sh", "-c", _PREPARE, self._account, self._data, *self._as_user(*command)]
        spaces = ["unshare", "--mount", "--uts", "--pid", "--fork"]
        outside = {"DEBIAN": f"{debian_13()}", "PLACE": f"{self._folder}", "NAME": self._described["hostname"]}
        variables = [f"{name}={value}" for name, value in {**outside, **self._environment()}.items()]
        return self.place.namespace.entered_by("env", "-i", *variables, *spaces, "sh", "-c", _ENTER, "sh", *inside)

    def start(self) -> None:
        """Start it as `docker compose up` does."""
        words = [*self._described["entrypoint"], *(self._described.get("command") or ())]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._enter(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        while self.is_running and self._first is None:
            time.sleep(0.01)

    def run(self, *arguments: str) -> None:
        """As `docker compose run --rm`."""
        done = subprocess.run(
            self._enter(*self._described["entrypoint"], *arguments), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    @property
    def _first(self) -> int | None:
        """The first process within, once it has its root."""
        assert self._process is not None
        with suppress(OSError, ValueError):
            [child] = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            if Path(f"/proc/{child}/root").readlink() == self._folder / "root":
                return int(child)
        return None

    def _execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        variables = [f"{name}={value}" for name, value in self._environment().items()]
        spaces = ["nsenter", f"--target={self._first}", "--mount", "--uts", "--pid", "--net", "--root", "--wd=/"]
        return subprocess.run(
            [*spaces, "env", "-i", *variables, *self._as_user(*command)],
            capture_output=True,
            text=True,
            check=False,
        )

    def out(self, *command: str) -> str:
        """What a command in it prints, which must succeed, as with `docker compose exec`."""
        done = self._execute(*command)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    @property
    def is_healthy(self) -> bool:
        """What its health check says."""
        _, *words = self._described["healthcheck"]["test"]
        return self.is_running and self._execute(*words).returncode == 0

    @property
    def is_running(self) -> bool:
        """Whether its first process lives."""
        return self._process is not None and self._process.poll() is None

    def _signal(self, number: int) -> None:
        if (first := self._first) is not None:
            os.kill(first, number)

    def stop(self) -> None:
        """As `docker compose stop`."""
        if self.is_running:
            assert self._process is not None
            self._signal(getattr(signal, self._described.get("stop_signal", "SIGTERM")))
            self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End all of its processes at once."""
        if self.is_running:
            self._signal(signal.SIGKILL)  # the kernel then ends all others
        if self._process is not None:
            self._process.wait()

    def remove_volume(self) -> None:
        """As `docker volume rm`, once it is stopped."""
        assert not self.is_running
        rmtree(self._folder / "volume")
        (self._folder / "volume").mkdir()


class Composed:
    """Services of compose files, by name, in a network of their own; nothing of them is left at the end."""

    def __init__(self, deploy: Path, files: Sequence[str], names: Sequence[str]) -> None:
        self._described = merged(deploy, *files)
        self._names = names
        self._services: dict[str, Service] = {}
        self._stack = ExitStack()
        self._folder = Path()

    @property
    def hosts(self) -> Path:
        """The file by which this machine knows the services' names."""
        return self._folder / "hosts"

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def up(self, *names: str) -> None:
        """As `docker compose up --wait`: until all are healthy. A service that ends is started again."""
        deadline = time.monotonic() + START_SECONDS
        while waited_for := [self[name] for name in names if not self[name].is_healthy]:
            for service in waited_for:
                assert time.monotonic() < deadline, service.log.read_text()[-3000:]
                if not service.is_running:
                    service.start()
            time.sleep(0.5)

    def type(self, script: str) -> str:
        """Run commands for Docker as a page shows them; what is printed."""
        lines = script.replace("\\\n", " ").splitlines()
        return "".join(self._docker(*shlex.split(line, comments=True)) for line in lines)

    def _docker(self, *words: str) -> str:
        match words:
            case ("docker", "compose", "exec", name, *command):
                return self[name].out(*command)
            case ("docker", "compose", "run", "--rm", name, *arguments):
                self[name].run(*arguments)
            case ("docker", "compose", "stop", name):
                self[name].stop()
            case ("docker", "compose", "rm", "--force", "--stop", name):
                self[name].stop()
            case ("docker", "compose", "restart", name):
                self[name].stop()
                self[name].start()
            case ("docker", "compose", "up", "--detach", "--wait", name):
                self.up(name)
            case ("docker", "volume", "rm", volume):
                self[volume.partition("_")[2]].remove_volume()
            case _:
                raise AssertionError(f"not known here: {shlex.join(words)}")
        return ""

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as PrivateServer
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(TemporaryDirectory(prefix="deviceops-")))
            links = (f"host{number}" for number in range(len(self._names)))  # their names have to be short
            places = dict(zip(self._names, stack.enter_context(Network(*links)).places, strict=True))
            self.hosts.write_text(_hosts({name: place.address for name, place in places.items()}))
            within = self._folder / "hosts-within"
            within.write_text(_hosts({name: place.peer_address for name, place in places.items()}))
            for name, place in places.items():
                described, secrets = self._described["services"][name], self._described["secrets"]
                service = Service(described, secrets, place, self._folder / name, within)
                stack.callback(service.kill)
                self._services[name] = service
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _hosts(addresses: Mapping[str, str]) -> str:
    """What is in a file such as /etc/hosts."""
    return "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **addresses}.items())
