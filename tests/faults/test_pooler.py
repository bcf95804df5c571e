"""PgBouncer between, pooling sessions or transactions: commands work, settings hold, refusals end a start."""

import asyncio
import json
import time
from collections.abc import Iterator
from random import Random
from typing import get_args

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url, text

from tests.faults.ledger import PATIENCE
from tests.faults.outages import assert_told_in_turn, is_paused, session
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.support.brokering import report
from tests.support.command import Deviceops
from tests.support.proxy import proxy_to
from tests.support.seed import OPERATION
from tests.support.services import POOLERS, PoolMode, PrivatePgBouncer
from tests.support.serving import DEVICE_OPERATIONS, DEVICES, OF_OPERATION, PATH, REPORT, serving
from worker.store.database import Database
from worker.store.errors import is_access_denied, is_transient

NEWEST = [*POOLERS][-1]
ANNOUNCED = {**OPERATION, "device_ids": DEVICES}


@pytest.fixture(
    params=[
        pytest.param(f"{version}, {mode}s", marks=[] if version == NEWEST else pytest.mark.not_every_day)
        for version in POOLERS
        for mode in get_args(PoolMode)
    ]
)
def pooler(request: pytest.FixtureRequest, sturdy_database: str) -> Iterator[PrivatePgBouncer]:
    """A pooler before a fresh, migrated database, of each version in each mode."""
    version, mode = request.param.removesuffix("s").split(", ")
    with POOLERS[version](sturdy_database, mode) as server:
        yield server


def pools_transactions(request: pytest.FixtureRequest) -> bool:
    """Whether a test's pooler may give each transaction another session."""
    return str(request.node.callspec.params["pooler"]).endswith("transactions")


async def test_restarted_under_a_worker(
    trials: Trials, new_scene: NewScene, amqp_url: str, sturdy_database: str, pooler: PrivatePgBouncer
) -> None:
    worker, ledger = await new_scene(amqp_url, sturdy_database, database_url=pooler.url, batch_size=50)

    async def restart(random: Random) -> None:
        await asyncio.to_thread(pooler.stop)
        await is_paused(worker, ledger, random)
        await asyncio.to_thread(pooler.start)

    await trials.endure("PgBouncer restarted", restart, ledger, worker)
    assert_told_in_turn(worker.log, trials.tries)


@pytest.fixture
def deviceops(deviceops_on_broker: Deviceops, pooler: PrivatePgBouncer) -> Deviceops:
    """The command with a broker, and its database behind the pooler."""
    return deviceops_on_broker.with_settings(database_url=pooler.url)


def test_every_command_works_behind_it(deviceops: Deviceops, new_empty_postgresql_database: str) -> None:
    empty = make_url(deviceops.settings["database_url"]).set(
        database=make_url(new_empty_postgresql_database).database
    )
    fresh = deviceops.with_settings(database_url=empty.render_as_string(hide_password=False))
    assert "has schema" in fresh.out("migrate")

    deviceops.out("run", "--until-idle", "0.1")  # which declares what `publish` needs
    deviceops.out("publish", "-", lines=json.dumps(report()) + "\n")
    assert deviceops.document("run", "--until-idle", "0.5")["applied"] == 1
    announcement = {"type": "operation.announced", "body": ANNOUNCED}
    lines = f"{json.dumps(announcement)}\n{json.dumps(report('SUCCESS'))}\n"
    assert deviceops.document("ingest", "-", lines=lines)["dead_lettered"] == {"unknown_device_operation": 1}
    assert "ready" in deviceops.out("check")
    deviceops.out("dead-letters", "replay", "--reason", "unknown_device_operation")
    assert deviceops.document("recount") == {"operations": 2, "drifted": []}
    with serving(deviceops) as server, server.client() as client:
        assert client.put(PATH, json=REPORT).status_code == httpx.codes.OK
        assert client.get(OF_OPERATION).status_code == httpx.codes.OK
        exported = client.get(DEVICE_OPERATIONS, headers={"Accept": "text/csv"})
    assert len(exported.text.splitlines()) == int(exported.headers["X-Row-Count"]) + 1 == len(DEVICES) + 1
    printed = deviceops.out("devices", OPERATION["id"], "--format", "csv", "--state", "CREATED")
    assert len(printed.splitlines()) == len(DEVICES)
    assert all(line["level"] in ("info", "warning") for line in server.log)


async def test_settings_hold_in_every_transaction_and_reach_nobody_else(pooler: PrivatePgBouncer) -> None:
    url = make_url(pooler.url).set(
        drivername="postgresql+asyncpg", query={"options": "-csearch_path=here,public -c work_mem=5MB"}
    )
    database = Database(url, lock_timeout=7, answer_timeout=8, for_batches=True)
    names = {
        "lock_timeout": "7s",
        "idle_in_transaction_session_timeout": "8s",
        "enable_seqscan": "off",
        "application_name": "deviceops",
        "search_path": "here,public",
        "work_mem": "5MB",
    }

    async def transactions() -> None:
        for _ in range(10):
            async with database.write() as connection:
                assert names == {name: await connection.scalar(text(f"SHOW {name}")) for name in names}
            async with database.read() as connection:
                assert names == {name: await connection.scalar(text(f"SHOW {name}")) for name in names}

    await asyncio.gather(*(transactions() for _ in range(4)))
    await database.close()
    others = [await asyncpg.connect(pooler.url, statement_cache_size=0) for _ in range(5)]
    for other in others:
        async with other.transaction():
            assert await other.fetchval("SHOW lock_timeout") == "0"
            assert await other.fetchval("SHOW enable_seqscan") == "on"
            assert await other.fetchval("SHOW jit") == "on"
            assert (
                await other.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name ~ '^deviceops'") == 0
            )
    for other in others:
        await other.close()


async def test_statements_are_prepared_once_only_where_the_pooler_keeps_track_of_them(
    pooler: PrivatePgBouncer, request: pytest.FixtureRequest
) -> None:
    keeps_track = request.node.callspec.params["pooler"] == "1.24, transactions"
    database = Database(make_url(pooler.url).set(drivername="postgresql+asyncpg"))
    for _ in range(3):
        async with database.write() as connection:
            assert await connection.scalar(text("SELECT 4321")) == 4321
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            assert (raw.is_pooled, raw.names_statements) == (True, keeps_track)
            assert await raw.fetchval("SELECT 8765") == 8765  # as batches do, past SQLAlchemy
            for statement in ("SELECT 4321", "SELECT 8765"):
                count = text("SELECT count(*) FROM pg_prepared_statements WHERE statement = :statement")
                assert await connection.scalar(count, {"statement": statement}) == keeps_track
    await database.close()


async def test_without_a_pooler_every_statement_is_prepared_once(sturdy_database: str) -> None:
    database = Database(make_url(sturdy_database))
    plans = "SELECT generic_plans + custom_plans FROM pg_prepared_statements WHERE statement = $1"
    for number in range(3):
        async with database.write() as connection:
            await connection.execute(text("SELECT 4321"))
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.fetch("SELECT 8765")  # as batches do, past SQLAlchemy
            for statement in ("SELECT 4321", "SELECT 8765"):
                assert [row[0] for row in await raw.fetch(plans, statement)] == [number + 1]
    await database.close()


def test_changes_reach_subscribers_behind_it(deviceops: Deviceops, request: pytest.FixtureRequest) -> None:
    polls = pools_transactions(request)
    deviceops.out("ingest", "-", lines=json.dumps({"type": "operation.announced", "body": ANNOUNCED}) + "\n")
    with serving(deviceops) as server, server.client() as client:
        deadline = time.monotonic() + 30
        while polls and not any("LISTEN" in line["event"] for line in server.log):
            assert time.monotonic() < deadline, server.log
            time.sleep(0.1)
        with client.stream("GET", f"{OF_OPERATION}events") as answer:
            told = (json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:"))
            before = next(told)
            assert client.put(PATH, json=REPORT).status_code == httpx.codes.OK
            assert next(told) != before
    said = [line["event"] for line in server.log if "LISTEN" in line["event"]]
    assert said == ["LISTEN is not supported, polling"] * polls


async def test_the_backend_of_a_lost_connection_is_not_ended_under_the_next_client(
    pooler: PrivatePgBouncer,
) -> None:
    url = make_url(pooler.url).set(drivername="postgresql+asyncpg")
    database = Database(url)
    async with database.engine.connect() as connection:
        backend = await connection.scalar(text("SELECT pg_backend_pid()"))
        await connection.rollback()
        await connection.invalidate()  # the pooler has the backend again, and lends it to who comes next
    async with asyncio.timeout(20):
        while await (other := await asyncpg.connect(pooler.url)).fetchval("SELECT pg_backend_pid()") != backend:
            await other.close()
    async with database.read() as connection:  # a new connection, which ends what was left behind
        await connection.execute(text("SELECT 1"))
    assert await other.fetchval("SELECT pg_backend_pid()") == backend
    await other.close()
    await database.close()


async def test_the_transaction_of_a_lost_connection_is_ended_by_the_next_one(
    pooler: PrivatePgBouncer, sturdy_database: str
) -> None:
    url = make_url(pooler.url)
    async with proxy_to("127.0.0.1", url.port or 0) as proxy, session(sturdy_database) as other:
        database = Database(url.set(drivername="postgresql+asyncpg", port=proxy.port))
        async with database.engine.connect() as connection:
            await connection.execute(text("DELETE FROM operations"))
            proxy.forget()  # so that the pooler hears nothing of an end
            await connection.invalidate()
        async with database.read() as connection:  # a new connection, which ends what was left behind
            await connection.execute(text("SELECT 1"))
        async with asyncio.timeout(PATIENCE), other.transaction():
            await other.execute("LOCK TABLE operations")
        await database.close()


async def test_a_parameter_that_it_does_not_support_is_a_refusal(pooler: PrivatePgBouncer) -> None:
    with pytest.raises(asyncpg.PostgresError, match="unsupported startup parameter") as raised:
        await asyncpg.connect(pooler.url, server_settings={"lock_timeout": "1"})
    assert is_access_denied(raised.value)
    assert not is_transient(raised.value)


@pytest.mark.parametrize("command", [["run"], ["check"], ["ingest", "-"], ["migrate"]])
def test_a_user_that_it_does_not_know_ends_the_first_start(deviceops: Deviceops, command: list[str]) -> None:
    url = make_url(deviceops.settings["database_url"]).set(username="nobody").render_as_string()
    done = deviceops.with_settings(database_url=url, log_level="ERROR")(
        *command, **{} if "-" not in command else {"lines": ""}
    )
    of_broker = ("policies could not be read", "warning: RabbitMQ")
    lines = [line for line in done.stderr.splitlines() if not line.startswith(of_broker)]
    assert (done.returncode, len(lines)) == (1, 1), done.stderr
    assert "authentication failed" in lines[0]
