"""Private servers that tests may kill, workers, ledgers; and the table at the end of a run."""

import json
import secrets
import statistics
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.faults.scene import NewScene, Scene, scene
from tests.faults.silence import NewSilence, Silence, silence
from tests.faults.trials import RESULT, Trials
from tests.faults.workers import Worker
from tests.support.databases import NewDatabase, PostgresqlServer
from tests.support.occasions import is_every_day
from tests.support.services import (
    BROKERS,
    CLUSTERS,
    DATABASES,
    PAIRS,
    PostgreSQLPair,
    PrivatePostgreSQL,
    PrivateRabbitMQ,
    RabbitMQCluster,
)

SECONDS_A_TRY = 60
"""For the timeout of tests that try many times."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test the time that its tries may take, and leave out what is not for every day."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300 + SECONDS_A_TRY * tries_of(item)))
        if is_every_day(config) and item.get_closest_marker("not_every_day"):
            item.add_marker(pytest.mark.skip(reason="with --full, --long or --tries"))


def chosen(config: pytest.Config, name: str, long: int, full: int, usual: int) -> int:
    """What an option says, else what is usual for a long run, with --full, every day."""
    given: int | None = config.getoption(name)
    if given is not None:
        return given
    return long if config.getoption("--long") else full if config.getoption("--full") else usual


def tries_of(item: pytest.Item) -> int:
    """How often each fault is tried. With --full those of clusters once, as one of theirs takes up to a minute."""
    is_of_cluster = any(item.get_closest_marker(mark) for mark in ("each_cluster", "each_pair"))
    return chosen(item.config, "--tries", 100, 1 if is_of_cluster else 3, 1)


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Trials:
    """How often each fault is tried, and by which seed, which is printed."""
    seed = request.config.getoption("--seed")
    return Trials(request, tries_of(request.node), secrets.randbelow(10**9) if seed is None else seed)


@pytest.fixture
def soak_seconds(request: pytest.FixtureRequest) -> int:
    """How long a worker has to live through small faults."""
    return chosen(request.config, "--soak", 3_600, 60, 15)


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[PrivateRabbitMQ]:
    """A RabbitMQ that may be killed; each test leaves it running. See EACH in tests/conftest.py."""
    with BROKERS[getattr(request, "param", next(iter(BROKERS)))]() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql(request: pytest.FixtureRequest) -> Iterator[PrivatePostgreSQL]:
    """A PostgreSQL that may be killed; each test leaves it running. See EACH in tests/conftest.py."""
    with DATABASES[getattr(request, "param", next(iter(DATABASES)))]() as server:
        yield server


@pytest.fixture(scope="session")
def _cluster(request: pytest.FixtureRequest) -> Iterator[RabbitMQCluster]:
    with CLUSTERS[getattr(request, "param", next(iter(CLUSTERS)))]() as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster: RabbitMQCluster) -> Iterator[RabbitMQCluster]:
    """Three RabbitMQs of which each may fail; whole when a test begins. See EACH in tests/conftest.py."""
    yield _cluster
    _cluster.mend()


@pytest.fixture(scope="session")
def _pair(request: pytest.FixtureRequest) -> Iterator[PostgreSQLPair]:
    with PAIRS[getattr(request, "param", next(iter(PAIRS)))]() as pair:
        yield pair


@pytest.fixture
def pair(_pair: PostgreSQLPair) -> Iterator[PostgreSQLPair]:
    """A primary and a standby of which each may fail; whole when a test begins. See EACH in tests/conftest.py."""
    yield _pair
    _pair.mend()


@pytest.fixture(scope="session")
def _databases(postgresql: PrivatePostgreSQL) -> PostgresqlServer:
    return PostgresqlServer(postgresql.url)


@pytest.fixture
def fragile_database(_databases: PostgresqlServer) -> str:
    """The URL of a fresh, migrated database on the server that may be killed."""
    return _databases.create()


@pytest.fixture
async def new_scene(tmp_path: Path) -> AsyncIterator[NewScene]:
    """Makes scenes; what they need on a broker is gone after the test, and so are their workers."""
    async with AsyncExitStack() as stack:

        async def make(amqp_url: str, database_url: str, /, **settings: object) -> Scene:
            return await stack.enter_async_context(scene(tmp_path, amqp_url, database_url, settings))

        yield make


@pytest.fixture
async def new_silence() -> AsyncIterator[NewSilence]:
    """Makes operations whose devices may fall silent."""
    async with AsyncExitStack() as stack:

        async def make(amqp_url: str, database_url: str, worker: Worker) -> Silence:
            return await stack.enter_async_context(silence(amqp_url, database_url, worker))

        yield make


@pytest.fixture
def is_large(request: pytest.FixtureRequest) -> bool:
    """Whether this run has full sizes."""
    return any(request.config.getoption(name) for name in ("--full", "--long"))


@pytest.fixture
def sturdy_database(new_postgresql_database: NewDatabase) -> str:
    """The URL of a fresh, migrated PostgreSQL database on the server that nobody kills."""
    return new_postgresql_database()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of the faults: what README.md here shows, from the run that just ended."""
    results: defaultdict[str, list[Any]] = defaultdict(list)
    for report in chain.from_iterable(terminalreporter.stats.values()):
        for name, value in getattr(report, "user_properties", ()):
            if name == RESULT and getattr(report, "when", "") == "call":
                results[json.loads(value)["fault"]].append(json.loads(value))
    if not results:
        return
    terminalreporter.section("faults")
    terminalreporter.line("| fault | tried | lost | doubled | resumed after (median, longest) |")
    terminalreporter.line("|---|---|---|---|---|")
    for fault, found in sorted(results.items()):
        tried, lost, doubled = (sum(each[name] for each in found) for name in ("tried", "lost", "doubled"))
        seconds = [second for each in found for second in each["seconds"]]
        times = f"{statistics.median(seconds):.1f} s, {max(seconds):.1f} s"
        terminalreporter.line(f"| {fault} | {tried} | {lost} | {doubled} | {times} |")
