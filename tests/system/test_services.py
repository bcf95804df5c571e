"""The services that the tests stand on: used where they answer, else private, and nothing stays behind."""

import asyncio
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import aio_pika
import asyncpg
import pytest

from tests.support.services import (
    BROKERS,
    CLUSTERS,
    DATABASES,
    PAIRS,
    POOLERS,
    PoolMode,
    PrivatePostgreSQL,
    PrivateRabbitMQ,
    PrivateServer,
    ServiceError,
)
from tests.support.services.cluster import declare, serve
from tests.support.services.machine import free_port
from tests.support.services.network import Network
from tests.support.services.shared import Services, borrowed

ROOT = Path(__file__).parents[2]
KINDS: list[type[PrivateServer]] = [PrivateRabbitMQ, PrivatePostgreSQL]


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where servers put their files. It is empty again after each test, and no process knows its name."""
    # Not tmp_path, which only its owner may enter: PostgreSQL may run as somebody else.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.setenv("TMPDIR", name)
        yield directory
        assert list(directory.iterdir()) == []
        deadline = time.monotonic() + 5
        while left := _processes_that_name(directory):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


def _processes_that_name(directory: Path) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for fact in ("cmdline", "environ"):
            with suppress(OSError):
                if os.fsencode(directory) in (process / fact).read_bytes():
                    found.append(process)
    return found


def _unused_shared_memory() -> set[str]:
    segments = (line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:])
    return {identifier for _, identifier, _, _, _, _, processes, *_ in segments if processes == "0"}


@pytest.fixture
def nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the tests at closed ports."""
    for kind in KINDS:
        monkeypatch.setenv(kind.variable, f"{kind.usual_urls[0].split(':')[0]}://x@127.0.0.1:{free_port()}/x")


@pytest.fixture
def nothing_installed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the installed servers."""
    monkeypatch.setenv("PATH", str(directory))
    for kind in KINDS:
        monkeypatch.setattr(kind, "folders", "nowhere")


async def _fetch(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize("version", DATABASES)
async def test_a_private_postgresql_that_is_killed_at_work_starts_again_on_its_data(version: str) -> None:
    with DATABASES[version]() as server:
        assert str(await _fetch(server.url, "SHOW server_version")).startswith(version)
        await _fetch(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        at_work = asyncio.create_task(_fetch(server.url, "SELECT count(*) FROM generate_series(1, 1e12::bigint)"))
        await asyncio.sleep(0.5)
        assert await _fetch(server.url, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'") == 2
        server.kill()
        with pytest.raises(asyncpg.PostgresConnectionError):
            await at_work
        with pytest.raises(ConnectionRefusedError):
            await asyncpg.connect(server.url)
        server.start()
        assert await _fetch(server.url, "SELECT answer FROM kept") == 42
        server.stop()
        server.start()
        assert await _fetch(server.url, "SELECT answer FROM kept") == 42


@pytest.mark.parametrize("version", BROKERS)
async def test_a_private_rabbitmq_that_is_killed_starts_again_on_its_data(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BROKERS[version]() as server:
        assert server.control("version").startswith(version)
        monkeypatch.setenv(server.variable, server.url)
        assert server.find_url() == server.url
        async with await aio_pika.connect(server.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
            await channel.default_exchange.publish(aio_pika.Message(b"42"), "kept")
        await asyncio.sleep(2)  # see PrivateRabbitMQ.kill()
        server.kill()
        assert server.find_url() is None
        server.start()
        async with await aio_pika.connect(server.url) as connection:
            channel = await connection.channel()
            kept = await (await channel.get_queue("kept", ensure=False)).get()
            assert kept.body == b"42"


@pytest.mark.parametrize("version", POOLERS)
async def test_a_private_pgbouncer_lends_its_connection_for_a_session_or_a_transaction(version: str) -> None:
    backend = "SELECT pg_backend_pid()"
    modes: dict[PoolMode, bool] = {"session": False, "transaction": True}
    with PrivatePostgreSQL() as postgresql:
        for mode, is_shared in modes.items():
            with POOLERS[version](postgresql.url, mode) as server:
                first, second = [await asyncpg.connect(server.url) for _ in range(2)]
                shares = await first.fetchval(backend) == await second.fetchval(backend)
                assert shares == is_shared
                for connection in (first, second):
                    connection.terminate()
                assert server._run(server._program, "--version").startswith(f"PgBouncer {version}.")


@pytest.fixture
def only_in_full(full: bool) -> None:
    """For services that the tests of faults use every day."""
    if not full:
        pytest.skip("takes a minute: with --full")


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.parametrize("version", PAIRS)
async def test_a_private_pair_keeps_what_is_committed_whoever_is_the_primary(version: str) -> None:
    count, insert = "SELECT count(*) FROM kept", "INSERT INTO kept VALUES (1) RETURNING 1"
    with PAIRS[version]() as pair:
        pair.primary.execute("CREATE TABLE kept (number integer)")
        pair.switch_over()
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await _fetch(pair.standby.url, insert)
        assert await _fetch(pair.url_of(), insert) == 1
        with pair.lagging():
            await _fetch(pair.primary.url, insert)
            assert await _fetch(pair.standby.url, count) == 1
            pair.fail_over()
        assert await _fetch(pair.url_of(), count) == 2
        pair.build_standby()
        assert await _fetch(pair.standby.url, count) == 2
        with pair.standby.frozen(), pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await _fetch(pair.primary.url, insert)
        assert str(await _fetch(pair.standby.url, "SHOW server_version")).startswith(version)


@pytest.mark.alone
@pytest.mark.usefixtures("only_in_full")
@pytest.mark.parametrize("version", [*CLUSTERS][-1:])  # the tests of faults use them all
async def test_a_private_cluster_serves_without_any_one_of_its_nodes(version: str) -> None:
    with CLUSTERS[version]() as cluster:
        namespaces = {_namespace(node.place.namespace.pid) for node in cluster.nodes}
        assert cluster.nodes[0].control("version").startswith(version)
        node = cluster.nodes[1]
        await declare(node, "kept")
        assert cluster.leader("kept") is node
        node.kill()
        await serve(cluster.others(node), "kept")
        assert cluster.leader("kept") is not node
        cluster.start()
        with node.place.cut_off(also_from_clients=False):
            await serve(cluster.others(node), "kept")
            with pytest.raises(ServiceError):  # it takes itself for the smaller part
                await serve([node], "kept", seconds=15)
        cluster.mend(node)
        cluster.wipe(node)
        cluster.grow(node)
        cluster.nodes[0].kill()
        await serve([node], "kept")
    assert len(namespaces) == len(cluster.nodes)
    _assert_gone(namespaces=namespaces)


def _namespace(pid: int | str) -> str:
    """The network namespace of a process."""
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def _assert_gone(*, namespaces: set[str], interface: str = "") -> None:
    """No process is in these, and no such interface is left, moments later at the latest."""
    deadline = time.monotonic() + 20
    while True:
        found = {name for _, name in socket.if_nameindex()}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                found.add(_namespace(process.name))
        left = found & {*namespaces, interface}
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_network_ends_with_the_tests(number: signal.Signals) -> None:
    program = (
        "from time import sleep; from tests.support.services.network import Network\n"
        "with Network('a') as network: print(network.interface, network.places[0].namespace.pid); sleep(60)"
    )
    command = [sys.executable, "-uc", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout is not None
        interface, pid = run.stdout.readline().decode().split()
        namespace = _namespace(pid)
        assert namespace != _namespace("self")
        assert interface in {name for _, name in socket.if_nameindex()}
        run.send_signal(number)
        assert run.wait(60) != 0
    _assert_gone(namespaces={namespace}, interface=interface)


def test_who_is_not_root_hears_that_it_takes_root_to_make_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ServiceError, match=r"run the tests as root\.$"), Network("a"):
        pass


@pytest.mark.usefixtures("nothing_answers")
async def test_where_nothing_answers_a_private_server_does_until_the_end() -> None:
    with PrivatePostgreSQL.service() as url:
        assert await _fetch(url, "SELECT 42") == 42
        assert url != os.environ[PrivatePostgreSQL.variable]
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(url)


async def test_a_server_that_answers_is_used_if_it_allows_the_tests_to_make_databases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with PrivatePostgreSQL() as server:
        for user, rights, expected in [("maker", "CREATEDB", True), ("reader", "", False)]:
            await _fetch(server.url, f"CREATE ROLE {user} LOGIN {rights}")
            url = server.url.replace("postgres@", f"{user}@")
            monkeypatch.setenv(server.variable, url)
            assert server.find_url() == (url if expected else None)
        monkeypatch.setenv(server.variable, server.url)
        with PrivatePostgreSQL.service() as url:
            assert url == server.url


@pytest.mark.usefixtures("nothing_answers", "nothing_installed")
@pytest.mark.parametrize(
    ("kind", "package"), [(PrivateRabbitMQ, "rabbitmq-server"), (PrivatePostgreSQL, "postgresql")]
)
def test_where_nothing_is_installed_either_one_sentence_says_what_to_do(
    kind: type[PrivateServer], package: str
) -> None:
    with pytest.raises(ServiceError, match=rf"^The tests need .* apt-get install {package}\.$"), kind.service():
        pass


@pytest.mark.usefixtures("nothing_answers", "nothing_installed")
def test_packages_that_are_missing_are_named_one_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("logging.disable", lambda: None)
    tools = runpy.run_module("tests.support.services", run_name="__main__")["TOOLS"]
    servers = ["rabbitmq-server", "postgresql"]
    assert capsys.readouterr().out.splitlines() == [*dict.fromkeys([*servers, *tools.values()])]


def test_a_server_that_cannot_start_says_why() -> None:
    server = PrivatePostgreSQL()
    server._data.mkdir()
    with pytest.raises(ServiceError, match=r"did not start:\n(.|\n)*postgresql\.conf"), server:
        pass


def test_a_server_that_was_killed_leaves_nothing_behind_when_a_test_fails() -> None:
    def kill_and_fail() -> None:
        with PrivatePostgreSQL() as server:
            server.kill()
            pytest.fail("the test itself")

    unused = _unused_shared_memory()
    with pytest.raises(pytest.fail.Exception, match="the test itself"):
        kill_and_fail()
    assert _unused_shared_memory() <= unused


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_nothing_behind(number: signal.Signals) -> None:
    program = (
        "import signal; from time import sleep; from tests.support.services import PrivatePostgreSQL\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "with PrivatePostgreSQL() as server: print(server.url, flush=True); sleep(60)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith(b"postgresql://")
        run.send_signal(number)
        assert run.wait(60) != 0


def test_the_processes_of_a_run_share_a_service_and_hear_why_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Services({"postgresql": PrivatePostgreSQL, "none": PrivateRabbitMQ}) as services:
        monkeypatch.setenv(PrivatePostgreSQL.variable, "postgresql://x@127.0.0.1:1/x")
        address = str(tmp_path / "services")
        services.lend(address)
        with ThreadPoolExecutor(4) as askers:
            [url] = {*askers.map(partial(borrowed, address), ["postgresql"] * 4)}
        assert PrivatePostgreSQL._answers(url)
        monkeypatch.setenv(PrivateRabbitMQ.variable, "amqp://x@127.0.0.1:1/x")
        monkeypatch.setattr(PrivateRabbitMQ, "program", "nowhere")
        with pytest.raises(ServiceError, match="apt-get install rabbitmq-server"):
            borrowed(address, "none")
    assert not PrivatePostgreSQL._answers(url)
