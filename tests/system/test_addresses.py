"""Addresses of several servers: every command finds the one that can be used, and `check` says which."""

import asyncio
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url

from tests.support.brokering import report
from tests.support.command import Deviceops
from tests.support.databases import NewDatabase
from tests.support.seed import OPERATION
from tests.support.services import PrivatePostgreSQL
from tests.support.services.machine import free_port
from tests.support.serving import DEVICES, OF_OPERATION, serving

ANNOUNCED = json.dumps({"type": "operation.announced", "body": {**OPERATION, "device_ids": DEVICES}}) + "\n"


def beside_nobody(url: str) -> str:
    """A database's URL with a host before its own at which nobody listens."""
    parsed = make_url(url)
    own = f"{parsed.host}:{parsed.port or 5432}"
    return f"postgresql://{parsed.username}@127.0.0.1:{free_port()},{own}/{parsed.database}"


def test_every_command_takes_several_hosts(
    deviceops_on_broker: Deviceops, new_empty_postgresql_database: str, amqp_url: str
) -> None:
    url = beside_nobody(new_empty_postgresql_database)
    broker = make_url(amqp_url)
    nodes = f"amqp://{broker.username}:{broker.password}@127.0.0.1:{free_port()},{broker.host}:{broker.port}/"
    deviceops = deviceops_on_broker.with_settings(database_url=url, amqp_url=nodes)

    assert "has schema" in deviceops.out("migrate")
    deviceops.out("run", "--until-idle", "0.1")
    deviceops.out("publish", "-", lines=json.dumps(report()) + "\n")
    assert deviceops.document("run", "--until-idle", "0.5")["applied"] == 1
    assert deviceops.document("ingest", "-", lines=ANNOUNCED)["announced"] == 1
    checked = deviceops("check")
    assert f"at {broker.host}, port {broker.port}" in checked.stdout
    assert f"at {make_url(new_empty_postgresql_database).host}, port" in checked.stdout
    assert "unavailable" not in checked.stderr
    for told in ("a failover cannot lead to this host", "workers cannot go over to this node"):
        [warning] = [line for line in checked.stderr.splitlines() if told in line]
        assert "Connection refused" in warning
    with serving(deviceops) as server, server.client() as client:
        assert client.get(OF_OPERATION).status_code == httpx.codes.OK


@pytest.mark.parametrize(
    ("setting", "login", "path", "told"),
    [
        ("amqp_url", "guest:wrong", "/", "ACCESS_REFUSED"),
        ("amqp_url", "guest:guest", "/nowhere", "does the virtual host exist"),
        ("database_url", "", "/nowhere", 'database "nowhere" does not exist'),
    ],
)
def test_a_server_that_refuses_ends_the_first_start_though_another_one_is_away(
    deviceops_on_broker: Deviceops,
    new_postgresql_database: NewDatabase,
    amqp_url: str,
    setting: str,
    login: str,
    path: str,
    told: str,
) -> None:
    own = make_url(amqp_url if setting == "amqp_url" else new_postgresql_database())
    scheme, user = ("amqp", login) if setting == "amqp_url" else ("postgresql", own.username)
    url = f"{scheme}://{user}@127.0.0.1:{free_port()},{own.host}:{own.port or 5432}{path}"
    done = deviceops_on_broker.with_settings(**{setting: url})("run")
    assert done.returncode == 1, done.stderr
    assert told in done.stderr


def test_check_warns_of_what_a_failover_would_lose(
    deviceops_on_broker: Deviceops, new_postgresql_database: NewDatabase
) -> None:
    url = new_postgresql_database()
    done = deviceops_on_broker.with_settings(database_url=beside_nobody(url))("check")
    assert done.returncode == 0, done.stderr
    assert "warning: several hosts are named, and commits wait for no standby" in done.stderr
    unsafe = make_url(url).set(drivername="postgresql", query={"options": "-csynchronous_commit=off"})
    done = deviceops_on_broker.with_settings(database_url=unsafe.render_as_string(hide_password=False))("check")
    assert "warning: synchronous_commit is off: a crash of the server loses reports" in done.stderr


def test_check_tries_every_server(deviceops_on_broker: Deviceops, amqp_url: str) -> None:
    broker = make_url(amqp_url)
    nodes = f"{broker.username}:{broker.password}@{broker.host}:{broker.port},localhost:{broker.port}"
    with PrivatePostgreSQL() as one, PrivatePostgreSQL() as other:
        port, others = (make_url(server.url).port for server in (one, other))
        alike, apart = (
            deviceops_on_broker.with_settings(
                database_url=f"postgresql://postgres@127.0.0.1:{port},{second}/postgres",
                amqp_url=f"amqp://{nodes}/",
            )
            for second in (f"localhost:{port}", f"127.0.0.1:{others}")
        )
        alike.out("migrate")
        twice, two = alike("check"), apart("check")
    for host in ("127.0.0.1", "localhost"):
        assert re.search(
            rf"^{host}, port {port}: PostgreSQL 15\S*( \(.*\))?, the primary$", twice.stdout, re.MULTILINE
        )
    assert len([line for line in twice.stdout.splitlines() if line.startswith("RabbitMQ")]) == 2
    assert not re.search("primaries|different", twice.stderr)
    assert f"127.0.0.1, port {others}: PostgreSQL" in two.stdout
    told = f"127.0.0.1, port {port} and 127.0.0.1, port {others} have different databases"
    assert told in two.stderr


def test_tables_are_in_the_schema_that_the_address_names(
    deviceops_on_broker: Deviceops, new_empty_postgresql_database: str
) -> None:
    server = make_url(new_empty_postgresql_database)
    url = server.set(drivername="postgresql", query={"options": "-csearch_path=fleet"})
    deviceops = deviceops_on_broker.with_settings(database_url=url.render_as_string(hide_password=False))
    done = deviceops("migrate")
    assert (done.returncode, "no schema has been selected" in done.stderr) == (1, True), done.stderr
    plain_url = server.set(drivername="postgresql").render_as_string(hide_password=False)
    asyncio.run(_execute(plain_url, "CREATE SCHEMA fleet"))
    assert "has schema" in deviceops.out("migrate")
    assert deviceops.document("ingest", "-", lines=ANNOUNCED)["announced"] == 1
    assert deviceops.document("recount") == {"operations": 1, "drifted": []}
    assert "ready, and a write was committed" in deviceops.out("check")
    assert "has no deviceops schema" in deviceops.with_settings(database_url=plain_url)("status").stderr


def test_a_server_is_reached_by_its_socket(deviceops_on_broker: Deviceops) -> None:
    server = PrivatePostgreSQL()
    with TemporaryDirectory(prefix="deviceops-") as sockets:  # not pytest's folder: the limit of a path is short
        Path(sockets).chmod(0o777)
        server.configuration["unix_socket_directories"] = sockets
        with server:
            port = make_url(server.url).port
            for url in (
                f"postgresql://postgres@/postgres?host={sockets}&port={port}",
                f"postgresql://postgres@{sockets.replace('/', '%2F')}:{port}/postgres",
            ):
                deviceops = deviceops_on_broker.with_settings(database_url=url)
                deviceops.out("migrate")
                assert f"at socket {sockets}/.s.PGSQL.{port}" in deviceops.out("check")


@pytest.mark.parametrize("command", [["run"], ["check"], ["ingest", "-"], ["migrate"]])
def test_a_setting_of_the_address_that_the_server_refuses_ends_the_start(
    deviceops_on_broker: Deviceops, new_postgresql_database: NewDatabase, command: list[str]
) -> None:
    url = make_url(new_postgresql_database()).set(drivername="postgresql", query={"options": "-csearch_pat=fleet"})
    deviceops = deviceops_on_broker.with_settings(
        database_url=url.render_as_string(hide_password=False), log_level="ERROR"
    )
    done = deviceops(*command, **{} if "-" not in command else {"lines": ""})
    assert done.returncode != 0
    assert 'DEVICEOPS_DATABASE_URL: options: unrecognized configuration parameter "search_pat"' in done.stderr


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()
