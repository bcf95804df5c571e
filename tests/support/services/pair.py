"""Private pairs of PostgreSQLs, this machine's or PostgreSQL 17: a primary, and a synchronous standby."""

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar, Self

from sqlalchemy import make_url

from tests.support.services.database import PostgreSQL17, PrivatePostgreSQL
from tests.support.services.server import ServiceError

ATTACH_SECONDS = 60
"""In which a standby that has started must stream what the primary writes."""
_SLOT = "standby"
# By name: that of a base backup goes away a moment after the backup has ended.
_SLOTS = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{_SLOT}'"  # noqa: S608  # our own
_FOLLOWED = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


class PairedPostgreSQL(PrivatePostgreSQL):
    """A PostgreSQL that can be a primary, and a standby of another one."""

    @property
    def port(self) -> int:
        """Where it answers, on 127.0.0.1."""
        return self._port

    def copy(self, primary: "PairedPostgreSQL") -> None:
        """Have the data that another one has, and nothing else. It must not run."""
        self._forget()
        self._run(
            self._program.with_name("pg_basebackup"),
            *("--dbname", primary.url, "--pgdata", self._data, "--checkpoint=fast", "--no-sync"),
        )

    def follow(self, primary: "PairedPostgreSQL") -> None:
        """Start as the standby of another one, which has all that this one has."""
        if primary.value(_SLOTS) == "0":
            primary.execute(f"SELECT pg_create_physical_replication_slot('{_SLOT}', true)")
        mark = self._data / "standby.signal"
        mark.touch()
        self._give(mark)
        self.configuration |= {
            "primary_conninfo": f"host=127.0.0.1 port={primary.port} user=postgres",
            "primary_slot_name": _SLOT,
        }
        self.start()

    def promote(self) -> None:
        """Become a primary, and wait for no standby, as long as none follows."""
        self.wait_for_standby(False)
        self.execute("SELECT pg_promote()")
        if self.value("SELECT pg_is_in_recovery()") == "t":
            raise ServiceError("A standby did not become a primary in a minute.")

    def wait_for_standby(self, does: bool, /) -> None:
        """Have commits wait for a standby, which follows by now, or not."""
        self.execute(
            f"ALTER SYSTEM SET synchronous_standby_names = '{'*' if does else ''}'", "SELECT pg_reload_conf()"
        )

    def value(self, query: str, database: str = "postgres") -> str:
        """The value that a query has in a database, as psql prints it."""
        url = make_url(self.url).set(database=database).render_as_string()
        return self._run(self._program.with_name("psql"), "-qAtX", url, "-c", query).strip()

    def _forget(self) -> None:
        """Delete the data."""
        if self._process is not None and self._process.returncode == -signal.SIGKILL:
            (self._data / "standby.signal").unlink(missing_ok=True)
            # It finds the shared memory that the killed one left, and frees it at its end.
            self._run(self._program.with_name("postgres"), "--single", "-F", "-D", self._data, "template1")
        shutil.rmtree(self._data, ignore_errors=True)


class PairedPostgreSQL17(PairedPostgreSQL, PostgreSQL17):
    """A PostgreSQL 17, as the others."""


class PostgreSQLPair:
    """A primary, and a hot standby by streaming replication, for which each commit waits.

    `with` starts both, and at the end leaves no process and no file of them. Who is which one changes: a primary
    that has lost its standby waits for none, as cluster managers have it, until there is one again.
    """

    kind: ClassVar[type[PairedPostgreSQL]] = PairedPostgreSQL

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.servers = [self._stack.push(self.kind()) for _ in range(2)]
        """In the order in which the URL names them."""
        self.primary, self.standby = self.servers

    def url_of(self, database: str = "postgres") -> str:
        """The URL of a database, which names both servers, and wants the one that is the primary."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write"

    def start(self) -> None:
        """Start the primary, and its standby."""
        self.primary.start()
        self.build_standby()

    def build_standby(self) -> None:
        """Make the standby anew, as a copy of the primary."""
        self.standby.kill()
        self.primary.wait_for_standby(False)
        self.standby.copy(self.primary)
        self.standby.follow(self.primary)
        self.wait_for_standby()

    def mend(self) -> None:
        """Make the standby anew if it does not follow, and remove all databases but the first."""
        if not self.standby.is_running or self.primary.value(_FOLLOWED) != "1":
            self.build_standby()
        for name in self.primary.value("SELECT datname FROM pg_database WHERE oid >= 16384").splitlines():
            self.primary.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def fail_over(self) -> None:
        """Kill the primary, and promote the standby. The other one is to be made anew: see `build_standby`."""
        self.primary.kill()
        self.promote()

    def promote(self) -> None:
        """Have the standby be the primary, whatever the other one is."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def demote(self) -> None:
        """Have the primary follow the standby: both answer, and refuse to write until one is promoted."""
        self.primary.stop()  # which sends its standby all that it has
        self.primary.follow(self.standby)

    def switch_over(self) -> None:
        """Change roles in order."""
        self.demote()
        self.promote()
        self.wait_for_standby()

    @contextmanager
    def lagging(self) -> Iterator[None]:
        """For the length of a block, the standby has what the primary writes, but does not show it."""
        server = self.standby
        server.execute("SELECT pg_wal_replay_pause()")
        try:
            yield
        finally:
            if server is self.standby:
                server.execute("SELECT pg_wal_replay_resume()")

    def wait_for_standby(self) -> None:
        """Have commits wait for the standby, which runs, from now on."""
        self._until_standby_is("state", "streaming")
        self.primary.wait_for_standby(True)
        self._until_standby_is("sync_state", "sync")

    def _until_standby_is(self, column: str, word: str) -> None:
        deadline = time.monotonic() + ATTACH_SECONDS
        while self.primary.value(f"SELECT {column} FROM pg_stat_replication") != word:  # noqa: S608  # our own
            if time.monotonic() > deadline:
                raise ServiceError(f"A standby is not {word} after {ATTACH_SECONDS} s:\n{self.standby.end_of_log}")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as PrivateServer
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class PostgreSQL17Pair(PostgreSQLPair):
    """A pair of PostgreSQLs 17."""

    kind = PairedPostgreSQL17
