"""A password that changes is read anew where it is kept; one that stays wrong ends the worker with one line."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Protocol

import pytest
from sqlalchemy import make_url

from tests.faults.fleet import Fleet
from tests.faults.outages import assert_clean, entries, said
from tests.faults.scene import NewScene, Scene
from tests.faults.trials import Trials
from tests.support.databases import PostgresqlServer
from tests.support.services import PrivatePostgreSQL, PrivateRabbitMQ

USER = "rotating"
REFUSAL_TIMEOUT = 8
LATE = 1
"""Seconds that a file has the old password still, at most, after some reports were published."""


class Server(Protocol):
    """A server that knows a user by a password; `file` is where the worker has its URL from."""

    name: str
    file: Path
    words: str

    def change(self, password: str) -> None:
        """Have another password from now on, and end all connections."""

    def url(self, password: str) -> str:
        """The worker's address with a password."""


class Broker:
    """A RabbitMQ with a user of the test's own."""

    name, words = "broker", "ACCESS_REFUSED"

    def __init__(self, server: PrivateRabbitMQ, file: Path, password: str) -> None:
        self._server, self.file = server, file
        server.control("add_user", USER, password)
        server.control("set_permissions", USER, ".*", ".*", ".*")

    def change(self, password: str) -> None:
        self._server.control("change_password", USER, password)
        self._server.control("close_all_user_connections", USER, "rotated")

    def url(self, password: str) -> str:
        return self._server.url.replace("guest:guest", f"{USER}:{password}")


class Postgres:
    """A PostgreSQL that asks the user for a password, and a database there."""

    name, words = "database", "password authentication failed"

    def __init__(self, server: PrivatePostgreSQL, database_url: str, file: Path, password: str) -> None:
        self._server, self._url, self.file = server, make_url(database_url), file
        server.execute(f"CREATE ROLE {USER} SUPERUSER LOGIN PASSWORD '{password}'")

    def change(self, password: str) -> None:
        self._server.execute(
            f"ALTER ROLE {USER} PASSWORD '{password}'",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'",  # noqa: S608
        )

    def url(self, password: str) -> str:
        return self._url.set(username=USER, password=password).render_as_string(hide_password=False)


@pytest.fixture
def asking() -> Iterator[PrivatePostgreSQL]:
    """A PostgreSQL that asks one user for a password."""
    server = PrivatePostgreSQL()
    server.access = [f"host all {USER} 127.0.0.1/32 scram-sha-256"]
    with server:
        yield server


@pytest.fixture(params=["broker", "database"])
async def rotating(
    request: pytest.FixtureRequest, new_scene: NewScene, tmp_path: Path, amqp_url: str, sturdy_database: str
) -> AsyncIterator[tuple[Server, Scene, str]]:
    """A server whose password is to change, a worker that has it from a file, and the password."""
    file, password = tmp_path / "url", secrets.token_hex(8)
    settings = {f"{'amqp' if request.param == 'broker' else 'database'}_url": None, "batch_size": 50}
    settings |= {"refusal_timeout": REFUSAL_TIMEOUT}
    server: Server
    if request.param == "broker":
        broker: PrivateRabbitMQ = request.getfixturevalue("broker")
        server = Broker(broker, file, password)
        file.write_text(server.url(password))
        scene = await new_scene(broker.url, sturdy_database, amqp_url_file=file, **settings)
        yield server, scene, password
        broker.control("delete_user", USER)
    else:
        asking: PrivatePostgreSQL = request.getfixturevalue("asking")
        database_url = await asyncio.to_thread(lambda: PostgresqlServer(asking.url).create())
        server = Postgres(asking, database_url, file, password)
        file.write_text(server.url(password))
        scene = await new_scene(amqp_url, database_url, database_url_file=file, **settings)
        yield server, scene, password


async def test_a_password_that_changes_is_read_anew(trials: Trials, rotating: tuple[Server, Scene, str]) -> None:
    server, (worker, ledger), _ = rotating

    async def rotate(random: Random) -> None:
        password = secrets.token_hex(8)
        await asyncio.to_thread(server.change, password)
        await ledger.publish(Fleet(random, devices=5))  # which takes a new connection
        await asyncio.sleep(random.uniform(0, LATE))  # never at once everywhere
        server.file.write_text(server.url(password) + "\n")

    await trials.endure(f"password of the {server.name} rotated", rotate, ledger, worker)
    assert worker.deaths == [0]
    assert len(said(worker.log, f"{server.name} access refused")) <= trials.tries
    assert_clean(worker.log)


async def test_a_password_that_stays_wrong_ends_the_worker_with_one_line(
    trials: Trials, rotating: tuple[Server, Scene, str]
) -> None:
    server, (worker, ledger), password = rotating

    async def forget_the_file(random: Random) -> None:
        lives = len(worker.deaths)
        await asyncio.to_thread(server.change, secrets.token_hex(8))
        await ledger.publish(Fleet(random, devices=5))
        await worker.has_died(lives + 1)
        assert worker.deaths[-1] == 1
        await asyncio.to_thread(server.change, password)
        await worker.is_ready()

    await trials.endure(f"password of the {server.name} wrong for long", forget_the_file, ledger, worker)
    refusals = [line for line in entries(worker.log) if server.words in line.get("error", "")]
    assert len(refusals) == trials.tries, worker.log
