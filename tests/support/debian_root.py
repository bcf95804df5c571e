"""A fresh Debian in a folder, with systemd in it: made by this machine's apt, and run by systemd-nspawn."""

import hashlib
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.brokering import eventually
from tests.support.services.debian import bootstrap

Tree = Mapping[str, tuple[object, ...]]

_MOUNTED = {"dev", "proc", "run", "sys", "tmp"}
_OF_APT = {
    *("var/cache/apt", "var/cache/debconf", "var/cache/ldconfig", "var/lib/apt", "var/lib/dpkg", "var/log"),
    *(f"etc/{name}-" for name in ("group", "gshadow", "passwd", "shadow")),  # what was before the last change
}


def make(folder: Path, *places: str) -> None:
    """Fill a folder with a minimal Debian, or Ubuntu, of this machine's release, and empty folders for mounts."""
    bootstrap(folder, "systemd", "systemd-sysv", "dbus")
    for timer in ("apt-daily", "apt-daily-upgrade"):  # they would hold apt's lock
        (folder / f"etc/systemd/system/{timer}.timer").symlink_to("/dev/null")
    for place in places:
        (folder / place.lstrip("/")).mkdir()


@dataclass(frozen=True)
class Debian:
    """A folder with a Debian in it, which sees some folders of this machine, by their places there."""

    folder: Path
    seen: Mapping[str, Path]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, without its systemd."""
        variables = (f"--setenv={name}={value}" for name, value in self.environment.items())
        return _run(*self._nspawn("--pipe", *variables, "--"), *command)

    @contextmanager
    def booted(self) -> Iterator["Booted"]:
        """Have its systemd run as its first process, on the network of this machine."""
        with (
            self.folder.with_suffix(".console").open("w+") as console,
            subprocess.Popen(
                self._nspawn("--boot"), stdin=subprocess.DEVNULL, stdout=console, stderr=console
            ) as nspawn,
        ):
            try:
                yield eventually(lambda: self._started(nspawn), patience=120)
            finally:
                nspawn.terminate()  # shuts it down in order
                try:
                    nspawn.wait(60)
                except subprocess.TimeoutExpired:
                    nspawn.kill()

    def _started(self, nspawn: subprocess.Popen[bytes]) -> "Booted | None":
        """The Debian that it runs, once that has started all that it starts by itself."""
        assert nspawn.poll() is None, self.folder.with_suffix(".console").read_text()
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
        if not children or not self._is_around(Path("/proc") / children[-1]):
            return None
        booted = Booted(int(children[-1]), self.environment)
        state = booted("systemctl", "is-system-running", "--wait").stdout
        return booted if state in ("running\n", "degraded\n") else None

    def _is_around(self, process: Path) -> bool:
        """Whether a process lives in it: the first child of nspawn only prepares, in this machine's own Debian."""
        try:
            apart = (process / "ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
            return apart and (process / "root").samefile(self.folder)
        except FileNotFoundError:  # it has ended by now
            return False

    def tree(self) -> Tree:
        """Every file, with what it is: without what apt notes about its own doings."""
        return dict(_walk(self.folder, self.folder))

    def _nspawn(self, *options: str) -> list[str]:
        mounts = (f"--bind-ro={folder}:{place}" for place, folder in self.seen.items())
        # Not tied to the systemd of this machine, which need not run, and without changes to its files.
        apart = ("--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off", "--link-journal=no")
        return ["systemd-nspawn", "--quiet", f"--directory={self.folder}", *apart, *mounts, *options]


@dataclass(frozen=True)
class Booted:
    """A Debian whose systemd runs."""

    leader: int
    environment: Mapping[str, str]

    def __call__(self, *command: str, lines: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it, with `lines` on standard input."""
        enter = [
            "nsenter",
            f"--target={self.leader}",
            *("--mount", "--uts", "--ipc", "--pid", "--net", "--cgroup", "--root", "--wd"),
        ]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        variables = (f"{name}={value}" for name, value in self.environment.items())
        return _run(*enter, "env", "--ignore-environment", path, *variables, *command, lines=lines)

    def property(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def _run(*command: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=600, check=False)


def _walk(top: Path, folder: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    for path in folder.iterdir():
        name = str(path.relative_to(top))
        if name in _MOUNTED | _OF_APT:
            continue
        found = path.lstat()
        content: object = None
        if stat.S_ISREG(found.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(found.st_mode):
            content = path.readlink()
        yield name, (oct(found.st_mode), found.st_uid, found.st_gid, content)
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(top, path)
