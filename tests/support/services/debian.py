"""Debians in folders, made of packages by this machine's apt."""

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from tests.support.caches import caches, locked
from tests.support.services.server import PrivateServer, ServiceError

_log = logging.getLogger(__name__)

DEBIAN_13 = ("trixie", "rabbitmq-server", "postgresql-17", "pgbouncer", "python3-venv", "docker-compose")
"""The suite, and the packages that the tests have of it."""
PYTHONS: dict[str, tuple[str, ...]] = {"3.13": DEBIAN_13, "3.14": ("forky", "postgresql", "python3.14-venv")}
"""By the versions of Pythons that are newer than this machine's: the suite and the packages that have it.

PostgreSQL is among them for the tests that start one, since the folder takes the place of this machine's programs.
"""


def bootstrap(folder: Path, *packages: str, suite: str | None = None) -> None:
    """Fill a folder with a minimal system of some packages: this machine's release, or a suite of Debian's.

    Takes half a minute to a minute.
    """
    with Path(gettempdir(), "deviceops-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # apt refuses to be run twice at a time
        _out("apt-get", "update", "--quiet=2")
    targets = _out(
        "apt-get",
        "indextargets",
        "--format=$(ORIGIN) deb $(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    )
    found = [line.partition(" ") for line in dict.fromkeys(targets.splitlines())]
    release = _release()
    if suite is None:
        sources = [source for origin, _, source in found if origin in ("Debian", "Ubuntu")]
        assert sources, f"apt has no source of Debian's or Ubuntu's packages: {targets}"
    else:  # where there is none of Debian's, as in Ubuntu, mmdebstrap goes to the mirror that it knows itself
        sources = [source.replace(release, suite) for origin, _, source in found if origin == "Debian"]
    with TemporaryDirectory() as name:
        # However apt gets to its mirror here, such as by a proxy, it does so there.
        reached = Path(name, "apt.conf")
        reached.write_text(_out("apt-config", "dump", '--format=%F "%v";%n', "Acquire"))
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            f"--aptopt={reached}",
            "--dpkgopt=force-unsafe-io",  # it is gone in minutes, or can be made again
            suite or "",
            str(folder),
            *(["-"] if sources else []),
        ]
        subprocess.run(command, input="\n".join(sources), text=True, check=True, timeout=600)
    shutil.copy("/etc/hosts", folder / "etc/hosts")


@cache
def debian(suite: str, *packages: str) -> Path:
    """A folder with a minimal system of some packages, made once and kept in the user's folder of caches."""
    if os.geteuid() != 0:
        raise ServiceError(
            f"Only root can make and enter a Debian in a folder, such as {suite}: run the tests as root."
        )
    folder = caches() / f"{suite}-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:8]}"
    with locked(folder):
        if not folder.exists():
            _log.warning("making a Debian (%s) in %s: this takes a minute, once", suite, folder)
            unfinished = folder.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            bootstrap(unfinished, *packages, suite=suite)
            unfinished.rename(folder)
    return folder


def debian_13() -> Path:
    """The folder with Debian 13's servers and programs."""
    return debian(*DEBIAN_13)


def seeing(folder: Path, *names: str, command: Iterable[str | Path]) -> list[str]:
    """How to run a command that sees some folders of a Debian, such as usr, and all else as it is here."""
    mounts = [f'mount --bind "$0/{name}" /{name}' for name in names]
    enter = " && ".join([*mounts, 'exec "$@"'])
    return ["unshare", "--mount", "sh", "-c", enter, *map(str, (folder, *command))]


class OnDebian13(PrivateServer):
    """A private server of Debian 13's, whatever this machine is.

    It sees the programs and the configuration of the Debian in the folder in the place of this machine's, and all
    else as it is here. What sees it so are its own processes, so nothing is left to be undone.
    """

    @classmethod
    def find_program(cls) -> Path:
        """The program in the Debian, by the path that it has there."""
        if os.geteuid() != 0:
            raise ServiceError(
                f"Only root can make and enter a Debian 13 in a folder, where {cls.__name__} is: run the tests as"
                f" root, or set {cls.variable} to the URL of a server."
            )
        folder = debian_13()
        return Path("/", next(folder.glob(f"{cls.folders}/{cls.program}")).relative_to(folder))

    @classmethod
    def ids(cls, account: str) -> tuple[int, int]:
        """The user and the group, as numbers, of an account in the Debian."""
        lines = (line.split(":") for line in (debian_13() / "etc/passwd").read_text().splitlines())
        return next((int(user), int(group)) for name, _, user, group, *_ in lines if name == account)

    def _command(self, *command: str | Path) -> list[str]:
        return seeing(debian_13(), "usr", "etc", command=super()._command(*command))


def _release() -> str:
    """The code name of this machine's release."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.replace('"', "").split("=", 1) for line in lines if "=" in line)["VERSION_CODENAME"]


def _out(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
