"""The fixtures: services for the whole run, and for each test a database and broker names of its own."""

import fcntl
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import aio_pika
import httpx
import pytest
import structlog
from aio_pika.abc import AbstractChannel
from hypothesis import HealthCheck, settings
from sqlalchemy import make_url

from tests.support.brokering import delete_topology
from tests.support.command import Deviceops
from tests.support.databases import NewDatabase, PostgresqlServer, SqliteFiles, cleared, in_a_thread
from tests.support.occasions import is_every_day
from tests.support.services import BROKERS, CLUSTERS, DATABASES, PAIRS
from tests.support.services.shared import Services, borrowed
from tests.support.serving import Server, serving
from worker.store.database import Database

settings.register_profile(
    "deviceops",
    deadline=None,  # an example waits for a database's disk
    print_blob=True,
    # One database for all examples of a test: each example begins by clearing it.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("few", settings.get_profile("deviceops"), max_examples=10)
settings.load_profile("deviceops")

SERVICES = "TEST_SERVICES"
"""The variable with the path at which the processes of a run that has several ask for services."""
TURNS = "TEST_TURNS"
"""The variable with the folder in which the processes of a run that has several agree on who runs alone."""

EACH: dict[str, tuple[str, list[str]]] = {
    "each_broker": ("amqp_url", [*BROKERS]),
    "each_private_broker": ("broker", [*BROKERS]),
    "each_cluster": ("_cluster", [*CLUSTERS]),
    "each_database": ("database_url", ["sqlite", "postgresql", "postgresql_17"]),
    "each_pair": ("_pair", [*PAIRS]),
    "each_postgresql": ("postgresql_url", [*DATABASES]),
    "each_private_postgresql": ("postgresql", [*DATABASES]),
}
"""The marks of tests that run with each version of a service, others with one: the fixture, and its versions.

With `full=True` they do so but for the everyday run.
"""

PARTS = ("most", "clusters", "alone")
"""The parts of a run. Tests of clusters wait most of the time: several run side by side, and no others."""

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))  # as the command does


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full`: the sizes for a release; the everyday run is what CI runs."""
    parser.addoption("--full", action="store_true", help="the sizes for a release: more streams, more reports")
    parser.addoption("--part", choices=PARTS, help="only one of the parts that tests/run.sh runs in turn")
    parser.addoption("--long", action="store_true", help="as --tries 100 --soak 3600")
    parser.addoption("--tries", type=int, help="how often each fault is tried, instead of once (--full: 3)")
    parser.addoption("--soak", type=int, help="seconds of small faults for one worker, instead of 15 (--full: 60)")
    parser.addoption("--pictures", action="store_true", help="update the pictures of pages in the repository")
    parser.addoption("--screenshots", type=Path, metavar="FOLDER", help="where pictures of pages go")
    parser.addoption("--seed", type=int, help="for the moments at which faults strike, as a failed run printed it")


class _Failures:
    """Prints each failure where it happens; pytest does at the end of a run, which may be half an hour later."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            print(f"\nfailed after {report.duration:.0f} s: {report.nodeid}", flush=True)  # noqa: T201


def pytest_configure(config: pytest.Config) -> None:
    """For a run of several processes: let them share services, and let tests take turns."""
    if not hasattr(config, "workerinput"):  # which collects the reports of all processes
        config.pluginmanager.register(_Failures())
    config.addinivalue_line(
        "markers",
        "alone: measures time or memory, or needs all of the machine: no other test runs at the same time",
    )
    config.addinivalue_line(
        "markers", "not_every_day: a fault that takes half a minute, or is much like another one"
    )
    config.addinivalue_line("markers", "long: takes a minute or more with --full, and begins early")
    for mark, (fixture, _) in EACH.items():
        config.addinivalue_line("markers", f"{mark}: tests with the fixture {fixture} run once with each version")
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        stack = ExitStack()
        config.add_cleanup(stack.close)
        folder = os.environ[TURNS] = stack.enter_context(TemporaryDirectory())
        os.environ[SERVICES] = f"{folder}/services"
        stack.enter_context(Services({**BROKERS, **DATABASES})).lend(os.environ[SERVICES])


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have tests that are marked so run once with each version of a service, by pytest's own mark for that."""
    for name, (fixture, versions) in EACH.items():
        mark = metafunc.definition.get_closest_marker(name)
        is_due = mark is not None and not (mark.kwargs.get("full") and is_every_day(metafunc.config))
        if is_due and fixture in metafunc.fixturenames:
            metafunc.definition.add_marker(pytest.mark.parametrize(fixture, versions, indirect=True))


@pytest.hookimpl(trylast=True)  # after -k and -m have taken theirs
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect other parts, put tests that run alone last, and share the long ones among the processes.

    Each process gets an equal, consecutive part of the tests, and one that has finished takes over the end of
    another's (`--dist=worksteal`). So a long test stands at the beginning of a part: none begins when all other
    processes are about to end.
    """
    chosen = config.getoption("--part")
    if left_out := [item for item in items if chosen not in (None, _part(item))]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _part(item) == chosen]
    last = [item for item in items if _part(item) != "most"]
    long = [item for item in items if _part(item) == "most" and item.get_closest_marker("long")]
    others = [item for item in items if item not in {*last, *long}]
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    parts = [long[number::processes] for number in range(processes)]
    size = len(long) + len(others)
    items[:] = []
    for number, part in enumerate(parts):
        end = (number + 1) * size // processes
        room = max(end - len(items) - len(part), 0)
        items += [*part, *others[:room]]
        del others[:room]
    items += [*others, *last]


def _part(item: pytest.Item) -> str:
    """The one of PARTS that a test belongs to."""
    marks = {mark.name for mark in item.iter_markers()}
    return "clusters" if "each_cluster" in marks else "alone" if "alone" in marks else "most"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Have tests that are marked so run alone, also where several processes run tests.

    No fixture, since the wait for the others is not to count as time that the test takes.
    """
    if (folder := os.environ.get(TURNS)) is None:
        return (yield)
    with Path(folder, "gate").open("w") as gate, Path(folder, "room").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)  # who waits to be alone lets nobody in
        may_share = item.config.getoption("--part") == "clusters" or _part(item) == "most"
        fcntl.flock(room, fcntl.LOCK_SH if may_share else fcntl.LOCK_EX)
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this run has full sizes."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def _service() -> Iterator[Callable[[str], str]]:
    """The URL of the service of a version, which runs until the end of the tests."""
    if (address := os.environ.get(SERVICES)) is not None:
        yield partial(borrowed, address)
        return
    with Services({**BROKERS, **DATABASES}) as services:
        yield services.url


@pytest.fixture(scope="session")
def postgresql_url(request: pytest.FixtureRequest, _service: Callable[[str], str]) -> str:
    """A PostgreSQL server on which tests make databases of their own: see EACH."""
    return _service(getattr(request, "param", next(iter(DATABASES))))


@pytest.fixture(scope="session")
def amqp_url(request: pytest.FixtureRequest, _service: Callable[[str], str]) -> str:
    """A RabbitMQ on which tests declare names of their own: see EACH."""
    return _service(getattr(request, "param", next(iter(BROKERS))))


@pytest.fixture(scope="session")
def _postgresql_servers() -> Iterator[Callable[[str], PostgresqlServer]]:
    with ExitStack() as stack:

        @cache
        def server(url: str) -> PostgresqlServer:
            return stack.enter_context(closing(PostgresqlServer(url)))

        yield server


@pytest.fixture(scope="session")
def _postgresql_server(
    postgresql_url: str, _postgresql_servers: Callable[[str], PostgresqlServer]
) -> PostgresqlServer:
    return _postgresql_servers(postgresql_url)


@pytest.fixture(scope="session")
def _sqlite_files(tmp_path_factory: pytest.TempPathFactory) -> SqliteFiles:
    return SqliteFiles(tmp_path_factory.mktemp("template") / "deviceops.db")


@pytest.fixture
def new_postgresql_database(_postgresql_server: PostgresqlServer) -> Iterator[NewDatabase]:
    """Makes PostgreSQL databases, fresh and migrated, and gives their URLs."""
    with _made_on(_postgresql_server) as create:
        yield create


@pytest.fixture
def new_postgresql_17_database(
    _service: Callable[[str], str], _postgresql_servers: Callable[[str], PostgresqlServer]
) -> Iterator[NewDatabase]:
    """Makes PostgreSQL 17 databases, fresh and migrated, and gives their URLs."""
    with _made_on(_postgresql_servers(_service("17"))) as create:
        yield create


@contextmanager
def _made_on(server: PostgresqlServer) -> Iterator[NewDatabase]:
    with ExitStack() as stack:

        def create() -> str:
            url = server.create()
            stack.callback(server.release, url)
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
    """The URL of a fresh, migrated database; the test runs once on each kind. See EACH."""
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
