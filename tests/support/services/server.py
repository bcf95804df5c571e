"""What a private RabbitMQ and a private PostgreSQL have in common."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Self

from tests.support.services.machine import family, free_port, living

START_SECONDS = 120
STOP_SECONDS = 60


class ServiceError(Exception):
    """A service that the tests need cannot be had. The message says what to do."""


class PrivateServer(ABC):
    """A throw-away server: `with` starts it, and at the end leaves no process and no file of it.

    Stopped or killed, it can be started again, with the same URL and on the same data.
    """

    package: ClassVar[str]
    program: ClassVar[str]
    folders: ClassVar[str]  # where Debian keeps the program, outside of PATH
    variable: ClassVar[str]  # the environment's name for the URL of a server that runs already
    usual_urls: ClassVar[Sequence[str]]  # where to look for one without the variable
    stop_signal: ClassVar[signal.Signals]
    url: str

    def __init__(self, account: str | None = None, folder: Path | None = None) -> None:
        self._program = self.find_program()
        self._host = "127.0.0.1"
        self._port = free_port()
        self._temporary = TemporaryDirectory(prefix="deviceops-", dir=folder)
        self._directory = Path(self._temporary.name)
        self._log = self._directory / "log"
        # Not the tests' own: a variable that is meant for another server would lead this one astray.
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(self._directory), "LANG": "C.UTF-8"}
        self._account = account
        self._give(self._directory)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its first process, while it runs."""
        assert self._process is not None
        return self._process.pid

    @staticmethod
    @abstractmethod
    async def connect(url: str) -> None:
        """Connect as a test would. Raises whatever keeps a test from working there."""

    @abstractmethod
    def _spawn(self) -> subprocess.Popen[bytes]: ...

    @classmethod
    def find_url(cls) -> str | None:
        """The URL of a server that runs already and lets the tests work, if there is one."""
        named = os.environ.get(cls.variable)
        return next(filter(cls._answers, [named] if named else cls.usual_urls), None)

    @classmethod
    @contextmanager
    def service(cls) -> Iterator[str]:
        """The URL of a server: the one that runs already, else a private one's. Raises ServiceError."""
        url = cls.find_url()
        if url is not None:
            yield url
            return
        with cls() as server:
            yield server.url

    @classmethod
    def find_program(cls) -> Path:
        """The installed program that starts a server. Raises ServiceError if there is none."""
        newest_first = sorted(map(str, Path("/").glob(cls.folders)), reverse=True)
        found = shutil.which(cls.program, path=os.pathsep.join([*newest_first, os.environ["PATH"]]))
        if found is None:
            raise ServiceError(
                f"The tests need {cls.package}, but no server answers and none is installed:"
                f" set {cls.variable} to a server's URL, or run apt-get install {cls.package}."
            )
        return Path(found)

    @classmethod
    def ids(cls, account: str) -> tuple[int, int]:
        """The user and the group, as numbers, of an account."""
        entry = pwd.getpwnam(account)
        return entry.pw_uid, entry.pw_gid

    def keep(self, name: str, content: bytes) -> Path:
        """Put a file beside the server's own, which it can read and nobody else."""
        path = self._directory / name
        path.write_bytes(content)
        path.chmod(0o600)
        self._give(path)
        return path

    def _give(self, path: Path) -> None:
        """Have a file or folder belong to the server's account, if it has one."""
        if self._account is not None:
            os.chown(path, *self.ids(self._account))

    @property
    def end_of_log(self) -> str:
        """What it has logged last."""
        return self._log.read_text(errors="replace")[-3000:]

    def start(self) -> None:
        """Start, and wait until the server answers. Raises ServiceError with the end of its log."""
        self._process = self._spawn()
        deadline = time.monotonic() + START_SECONDS
        while not (self._listens() and self._answers(self.url)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServiceError(f"A private {self.package} did not start:\n{self.end_of_log}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End in order."""
        if self._process is None or not self.is_running:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End as in a crash: SIGKILL to every process of the server."""
        if self._process is None or not self.is_running:
            return
        self._process.send_signal(signal.SIGSTOP)  # so that no child is born while we list them
        members = family(self._process.pid)
        self._signal(members, signal.SIGKILL)
        self._process.wait()
        while living().keys() & members:
            time.sleep(0.01)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """For the length of a block none of its processes moves; connections stay open, and new ones hang."""
        assert self._process is not None
        members: set[int] = set()
        try:
            while more := family(self._process.pid) - members:  # again, for those born meanwhile
                members |= more
                self._signal(more, signal.SIGSTOP)
            yield
        finally:
            self._signal(members, signal.SIGCONT)

    @staticmethod
    def _signal(members: Iterable[int], number: signal.Signals) -> None:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @property
    def is_running(self) -> bool:
        """Whether its first process lives."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # A CI that gives up sends SIGTERM. Let it clean up as Ctrl-C does.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._temporary.cleanup()

    @classmethod
    def _answers(cls, url: str) -> bool:
        # In a thread of its own, because the caller's may have an event loop that runs.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, cls.connect(url)).exception() is None

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection((self._host, self._port), timeout=10):
            return True
        return False

    def _command(self, *command: str | Path) -> list[str]:
        """How to run a command as the server runs: as its account, and where it sees its own files."""
        if self._account is None:
            return [str(word) for word in command]
        user, group = self.ids(self._account)
        return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *map(str, command)]

    def _run(self, *command: str | Path, typed: str = "") -> str:
        """What one of the server's programs prints. Raises CalledProcessError if it fails."""
        done = subprocess.run(
            self._command(*command), env=self._environment, input=typed.encode(), check=True, capture_output=True
        )
        return done.stdout.decode()

    def _popen(self, *command: str | Path) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command(*command),
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, and they then stop the server
            )
