"""Where benchmarks play: the services, and for each run a database and broker names of its own."""

import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
from sqlalchemy import make_url

from tests.benchmarks import broker
from tests.benchmarks.broker import Broker
from tests.support.databases import PostgresqlServer, SqliteFiles
from tests.support.services import PrivatePostgreSQL, PrivateRabbitMQ
from worker.amqp.topology import Topology

KINDS = ("postgresql", "sqlite")
SETTINGS = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
"""What is told of the PostgreSQL."""
PACKAGES = ("deviceops", "aio-pika", "faststream", "SQLAlchemy", "uvloop")
"""Whose versions are told."""


@dataclass(frozen=True)
class Scene:
    """One run's own: a fresh, migrated database, a topology, a folder."""

    amqp_url: str
    database_url: str
    topology: Topology
    directory: Path

    @property
    def settings(self) -> Mapping[str, str]:
        """The product's settings for it."""
        return {
            "amqp_url": self.amqp_url,
            "database_url": self.database_url,
            "topology_prefix": self.topology.prefix,
            "partitions": str(self.topology.partitions),
            "log_level": "WARNING",
        }

    @property
    def postgresql_url(self) -> str:
        """The database for asyncpg."""
        return plain(self.database_url)


@dataclass(frozen=True)
class Stage:
    """The services of a whole benchmark."""

    amqp_url: str
    postgresql_url: str
    databases: PostgresqlServer
    files: SqliteFiles
    directory: Path
    broker: Broker

    @asynccontextmanager
    async def scene(
        self, kind: str = "postgresql", database_url: str | None = None, partitions: int = 1
    ) -> AsyncIterator[Scene]:
        """A scene for the length of a block, with a database of its own unless one is given."""
        prefix = f"benchmark-{secrets.token_hex(6)}"
        async with self.broker.topology(prefix, partitions) as topology:
            if database_url is not None:
                yield Scene(self.amqp_url, database_url, topology, self.directory)
            elif kind == "sqlite":
                with TemporaryDirectory(dir=self.directory) as folder:
                    yield Scene(self.amqp_url, self.files.create(Path(folder)), topology, self.directory)
            else:
                with self.database() as url:
                    yield Scene(self.amqp_url, url, topology, self.directory)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh, migrated PostgreSQL database for the length of a block."""
        url = self.databases.create()
        try:
            yield url
        finally:
            self.databases.drop(url)

    async def conditions(self) -> dict[str, object]:
        """What figures depend on, and are worth nothing without."""
        connection = await asyncpg.connect(self.postgresql_url)
        try:
            shown = {name: await connection.fetchval(f"SHOW {name}") for name in SETTINGS}
        finally:
            await connection.close()
        return {
            "processors": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "queue": "quorum, persistent messages",
            "postgresql": shown,
            "packages": {name: version(name) for name in PACKAGES},
        }


@contextmanager
def watching_theft(conditions: dict[str, object]) -> Iterator[None]:
    """Add to conditions what share of the processors' time the host gave to others while the block ran.

    proc_stat(5): the first line has the times of all processors, the eighth of which is the stolen one; what comes
    after it is part of others.
    """

    def times() -> list[int]:
        return [int(time) for time in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]

    before = times()
    yield
    taken = [after - begun for after, begun in zip(times(), before, strict=True)]
    conditions["stolen"] = taken[7] / sum(taken)


@asynccontextmanager
async def opened() -> AsyncIterator[Stage]:
    """The stage for the length of a block; nothing of it is left behind."""
    with (
        PrivateRabbitMQ.service() as amqp_url,
        PrivatePostgreSQL.service() as postgresql_url,
        TemporaryDirectory(prefix="deviceops-benchmark-") as folder,
    ):
        directory = Path(folder)
        databases = PostgresqlServer(postgresql_url)
        try:
            async with broker.connected(amqp_url) as connection:
                files = SqliteFiles(directory / "template.db")
                yield Stage(amqp_url, plain(postgresql_url), databases, files, directory, connection)
        finally:
            databases.close()


def plain(url: str) -> str:
    """A database's URL as asyncpg takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
