"""A private PgBouncer: this machine's, or PgBouncer 1.24."""

import os
import signal
import subprocess
from typing import Literal

import asyncpg
from sqlalchemy import make_url

from tests.support.services.debian import OnDebian13
from tests.support.services.server import PrivateServer

PoolMode = Literal["session", "transaction"]
"""For how long PgBouncer lends a connection of its own to a client."""


class PrivatePgBouncer(PrivateServer):
    """A PgBouncer before a PostgreSQL that trusts this machine; it lets in the user of that server's URL only."""

    package = "pgbouncer"
    program = "pgbouncer"
    folders = "usr/sbin"
    variable = "TEST_PGBOUNCER_URL"
    usual_urls = ()
    stop_signal = signal.SIGTERM

    def __init__(self, server_url: str, pool_mode: PoolMode = "session") -> None:
        super().__init__("postgres" if os.geteuid() == 0 else None)  # it refuses to run as root
        server = make_url(server_url)
        self.url = server.set(drivername="postgresql", port=self._port).render_as_string(hide_password=False)
        users = self.keep("users.txt", f'"{server.username}" ""\n'.encode())
        lines = [
            "[databases]",
            f"* = host={server.host} port={server.port or 5432}",
            "[pgbouncer]",
            f"listen_addr = 127.0.0.1\nlisten_port = {self._port}\nunix_socket_dir =",
            f"auth_type = trust\nauth_file = {users}",
            f"pool_mode = {pool_mode}",
            "",
        ]
        self._configuration = self.keep("pgbouncer.ini", "\n".join(lines).encode())

    @staticmethod
    async def connect(url: str) -> None:
        """Connect as any client does."""
        await (await asyncpg.connect(url, timeout=10)).close()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return self._popen(self._program, self._configuration)


class PgBouncer124(OnDebian13, PrivatePgBouncer):
    """A private PgBouncer 1.24."""

    variable = "TEST_PGBOUNCER_124_URL"
    stop_signal = signal.SIGQUIT  # since 1.23 SIGTERM waits for the clients to go
