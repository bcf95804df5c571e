"""The fixtures: services for the whole run, and for each test a database and broker names of its own."""

import fcntl
import logging
import os
import secrets
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import aio_pika
import httpx
import pytest
import structlog
from aio_pika.abc import AbstractChannel
from hypothesis import HealthCheck, settings
from sqlalchemy import make_url

from tests import services
from tests.command import Deviceops
from tests.databases import NewDatabase, PostgresqlServer, SqliteFiles, cleared, in_a_thread
from tests.serving import Server, serving
from worker.store.database import Database

settings.register_profile(
    "deviceops",
    deadline=None,  # an example waits for a database's disk
    print_blob=True,
    # One database for all examples of a test: each example begins by clearing it.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("deviceops")

TURNS = "TEST_TURNS"
"""The variable with the folder in which the processes of a run that has several agree on who runs alone."""

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))  # as the command does


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full`: the sizes that CI runs; the everyday run is to stay under ten minutes."""
    parser.addoption("--full", action="store_true", help="the sizes that CI runs: more streams, more reports")
    parser.addoption("--long", action="store_true", help="as --tries 100 --soak 3600")
    parser.addoption("--tries", type=int, help="how often each fault is tried, instead of once (CI: 3)")
    parser.addoption("--soak", type=int, help="seconds of small faults for one worker, instead of 15 (CI: 60)")
    parser.addoption("--seed", type=int, help="for the moments at which faults strike, as a failed run printed it")


def pytest_configure(config: pytest.Config) -> None:
    """For a run of several processes: start the services that are missing once, and let tests take turns."""
    config.addinivalue_line(
        "markers", "alone: measures time or memory, or needs all of the machine: nothing else runs beside it"
    )
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        stack = ExitStack()
        config.add_cleanup(stack.close)
        os.environ[TURNS] = stack.enter_context(TemporaryDirectory())
        os.environ[services.PrivateRabbitMQ.variable] = stack.enter_context(services.rabbitmq())
        os.environ[services.PrivatePostgreSQL.variable] = stack.enter_context(services.postgresql())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have tests that run alone come last, as each would keep all other processes waiting for the longest test."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Have tests that are marked so run alone, also where several processes run tests.

    No fixture, since the wait for the others is not to count as time that the test takes.
    """
    if (folder := os.environ.get(TURNS)) is None:
        return (yield)
    with Path(folder, "gate").open("w") as gate, Path(folder, "room").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)  # who waits to be alone lets nobody in
        fcntl.flock(room, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this run has the sizes of CI."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL server on which tests make databases of their own."""
    with services.postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    """A RabbitMQ on which tests declare names of their own."""
    with services.rabbitmq() as url:
        yield url


@pytest.fixture(scope="session")
def _postgresql_server(postgresql_url: str) -> Iterator[PostgresqlServer]:
    server = PostgresqlServer(postgresql_url)
    yield server
    server.close()


@pytest.fixture(scope="session")
def _sqlite_files(tmp_path_factory: pytest.TempPathFactory) -> SqliteFiles:
    return SqliteFiles(tmp_path_factory.mktemp("template") / "deviceops.db")


@pytest.fixture
def new_postgresql_database(_postgresql_server: PostgresqlServer) -> Iterator[NewDatabase]:
    """Makes PostgreSQL databases, fresh and migrated, and gives their URLs."""
    with ExitStack() as stack:

        def create() -> str:
            url = _postgresql_server.create()
            stack.callback(_postgresql_server.drop, url)
            return url

        yield create


@pytest.fixture
def new_empty_postgresql_database(_postgresql_server: PostgresqlServer) -> Iterator[str]:
    """The URL of a PostgreSQL database without any tables."""
    url = _postgresql_server.create(empty=True)
    yield url
    _postgresql_server.drop(url)


@pytest.fixture
def new_sqlite_database(_sqlite_files: SqliteFiles, tmp_path: Path) -> NewDatabase:
    """Makes SQLite files, fresh and migrated, and gives their URLs."""
    return lambda: _sqlite_files.create(tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database; the test runs once on each kind."""
    create: NewDatabase = request.getfixturevalue(f"new_{request.param}_database")
    return create()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A fresh, migrated database; the test runs once on each kind."""
    database = Database(make_url(database_url))
    yield database
    await database.close()


@pytest.fixture
async def sqlite_database(new_sqlite_database: NewDatabase) -> AsyncIterator[Database]:
    """A fresh, migrated SQLite database."""
    database = Database(make_url(new_sqlite_database()))
    yield database
    await database.close()


@pytest.fixture
async def postgresql_database(new_postgresql_database: NewDatabase) -> AsyncIterator[Database]:
    """A fresh, migrated PostgreSQL database."""
    database = Database(make_url(new_postgresql_database()))
    yield database
    await database.close()


@pytest.fixture
def topology_prefix(amqp_url: str) -> Iterator[str]:
    """A prefix for names on the broker; what the worker declares with it is deleted after the test."""
    prefix = f"test-{secrets.token_hex(8)}"
    yield prefix
    in_a_thread(delete_topology(amqp_url, prefix))


async def delete_topology(amqp_url: str, prefix: str) -> None:
    """Delete what the worker declared."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        for queue in (f"{prefix}.reports", f"{prefix}.dead-letters"):
            await channel.queue_delete(queue)
        for exchange in (prefix, f"{prefix}.dead-letters"):
            await channel.exchange_delete(exchange)


@pytest.fixture
def deviceops(database_url: str, tmp_path: Path) -> Deviceops:
    """The command on a fresh, migrated database, and without a broker; once on each kind."""
    return Deviceops(tmp_path, {"database_url": database_url, "amqp_url": "amqp://guest:guest@127.0.0.1:1/"})


@pytest.fixture
def deviceops_on_sqlite(new_sqlite_database: NewDatabase, tmp_path: Path) -> Deviceops:
    """The command on a fresh, migrated SQLite database, for what no database changes."""
    return Deviceops(tmp_path, {"database_url": new_sqlite_database()})


@pytest.fixture
def deviceops_on_broker(deviceops_on_sqlite: Deviceops, amqp_url: str, topology_prefix: str) -> Deviceops:
    """The command on a fresh, migrated SQLite database, with names of its own on the broker."""
    return deviceops_on_sqlite.with_settings(amqp_url=amqp_url, topology_prefix=topology_prefix)


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    """A channel of the test's own."""
    async with await aio_pika.connect(amqp_url) as connection:
        yield await connection.channel()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def _shared_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Deviceops]]:
    directory = tmp_path_factory.mktemp("served")
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = request.getfixturevalue("_sqlite_files").create(directory)
        else:
            databases: PostgresqlServer = request.getfixturevalue("_postgresql_server")
            url = databases.create()
            stack.callback(databases.drop, url)
        deviceops = Deviceops(directory, {"database_url": url})
        yield stack.enter_context(serving(deviceops)), deviceops


@pytest.fixture
def server(_shared_server: tuple[Server, Deviceops]) -> Server:
    """A server on a database as good as fresh, not to be stopped: others use it too; once on each kind."""
    server, deviceops = _shared_server
    in_a_thread(cleared(deviceops.settings["database_url"]))
    return server


@pytest.fixture
def deviceops_at_server(server: Server, _shared_server: tuple[Server, Deviceops]) -> Deviceops:  # noqa: ARG001  # cleared
    """The command on the database of `server`."""
    return _shared_server[1]


@pytest.fixture
def api(server: Server) -> Iterator[httpx.Client]:
    """A client that may do everything."""
    with server.client() as client:
        yield client
