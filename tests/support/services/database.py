"""A private PostgreSQL: this machine's, or PostgreSQL 17."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import asyncpg

from tests.support.services.debian import OnDebian13
from tests.support.services.server import PrivateServer


class PrivatePostgreSQL(PrivateServer):
    """A PostgreSQL that trusts whoever connects from this machine."""

    package = "postgresql"
    program = "initdb"
    folders = "usr/lib/postgresql/*/bin"
    variable = "TEST_POSTGRESQL_URL"
    usual_urls: ClassVar[Sequence[str]] = (
        "postgresql://root@127.0.0.1:5432/test",
        "postgresql://postgres@127.0.0.1:5432/postgres",
    )
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__("postgres" if os.geteuid() == 0 else None, folder)  # it refuses to run as root
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self._data = self._directory / "data"
        self.configuration: dict[str, str | Path] = {}
        """What its postgresql.conf would say, from the next start on."""
        self.access: list[str] = []
        """Lines for its pg_hba.conf, before the one that trusts `postgres`, from the next start on."""

    @staticmethod
    async def connect(url: str) -> None:
        """Connect, and ask for the right to create databases."""
        connection = await asyncpg.connect(url, timeout=10)
        try:
            if not await connection.fetchval(
                "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            ):
                raise PermissionError("the user may not create databases")
        finally:
            await connection.close()

    def execute(self, *statements: str) -> None:
        """Run statements as the superuser, each on its own."""
        for statement in statements:
            self._run(self._program.with_name("psql"), "-q", self.url, "-c", statement)

    def __exit__(self, *_: object) -> None:
        try:
            if self._process is not None and self._process.poll() == -signal.SIGKILL:
                self.start()  # it finds the shared memory that the killed one left, and frees it at its end
        finally:
            super().__exit__()

    def _spawn(self) -> subprocess.Popen[bytes]:
        if not self._data.exists():
            self._popen(
                self._program,
                f"--pgdata={self._data}",
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ).wait()
        # No socket file: the limit of its path is short. Memory in files of the data directory, because what is in
        # /dev/shm would outlive a server that is killed.
        options = ["-c", "unix_socket_directories=", "-c", "dynamic_shared_memory_type=mmap"]
        if self.access:
            trusting = "host all postgres 127.0.0.1/32 trust"
            hba = self.keep("pg_hba.conf", "\n".join([*self.access, trusting, ""]).encode())
            options += ["-c", f"hba_file={hba}"]
        for name, value in self.configuration.items():
            options += ["-c", f"{name}={value}"]
        return self._popen(
            self._program.with_name("postgres"),
            *options,
            *("-D", self._data, "-h", "127.0.0.1", "-p", str(self._port)),
        )


class PostgreSQL17(OnDebian13, PrivatePostgreSQL):
    """A private PostgreSQL 17."""

    variable = "TEST_POSTGRESQL_17_URL"
    usual_urls = ()
