"""The commands of the page for operators, and what it promises of upgrades and of connections."""

import asyncio
import json

import asyncpg
import pytest
from aio_pika.abc import AbstractChannel
from sqlalchemy import make_url

from tests.support.brokering import declared, eventually, report, send, until_logged
from tests.support.command import Deviceops
from tests.support.databases import NewDatabase, in_a_thread
from tests.support.documents import block, run
from tests.support.old_schema import make_version_1
from tests.support.serving import serving

PAGE = "deploy/operating.md"


def libpq(url: str) -> str:
    """A database's URL as libpq's own programs take it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def on_postgresql(new_postgresql_database: NewDatabase, deviceops_on_broker: Deviceops) -> Deviceops:
    """The command on a fresh PostgreSQL, with names of its own on the broker."""
    return deviceops_on_broker.with_settings(database_url=libpq(new_postgresql_database()), probe_port="0")


def sql(deviceops: Deviceops, *statements: str) -> list[asyncpg.Record]:
    """What the last of some statements gives."""

    async def execute() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(deviceops.settings["database_url"])
        try:
            results: list[list[asyncpg.Record]] = [await connection.fetch(each) for each in statements]
            return results[-1]
        finally:
            await connection.close()

    return in_a_thread(execute())


def test_two_commands_say_that_all_is_well(on_postgresql: Deviceops) -> None:
    told = run(block(PAGE, "all-is-well"), on_postgresql)

    assert "ready" in told
    assert "all counters agree" in told


def test_an_older_database_is_upgraded_by_the_commands_for_it(
    new_empty_postgresql_database: str, on_postgresql: Deviceops
) -> None:
    make_version_1(new_empty_postgresql_database)
    old = on_postgresql.with_settings(database_url=libpq(new_empty_postgresql_database))

    assert old("check").returncode == 1
    assert "ready" in run(block(PAGE, "upgrade"), old)


async def test_a_worker_goes_on_with_a_schema_that_was_expanded_until_it_connects_anew(
    on_postgresql: Deviceops, channel: AbstractChannel
) -> None:
    exchange = await declared(on_postgresql, channel)
    with on_postgresql.start("run") as worker:
        until_logged(worker, "consuming")
        sql(
            on_postgresql,
            "ALTER TABLE operations ADD COLUMN colour text",
            "CREATE INDEX ON operations (colour)",
            "UPDATE alembic_version SET version_num = '9999'",
        )
        await send(exchange, report(), report())
        await asyncio.to_thread(eventually, lambda: sql(on_postgresql, "SELECT FROM operations")[1:])

        started = await asyncio.to_thread(on_postgresql, "run", "--until-idle", "1")
        assert (started.returncode, "newer than this deviceops knows" in started.stderr) == (1, True)

        assert worker.poll() is None
        await channel.queue_delete(f"{on_postgresql.settings['topology_prefix']}.reports")
        assert await asyncio.to_thread(worker.wait, 30) == 1
        assert worker.stderr is not None
        assert "has schema 9999, newer than this deviceops knows: upgrade deviceops" in worker.stderr.read()


def test_a_migration_that_finds_nothing_to_do_waits_for_nobody(on_postgresql: Deviceops) -> None:
    async def while_everything_is_locked() -> None:
        connection = await asyncpg.connect(on_postgresql.settings["database_url"])
        try:
            async with connection.transaction():
                tables = "operations, device_operations, device_operation_activity, dead_letters"
                await connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
                await asyncio.to_thread(on_postgresql.out, "migrate")
        finally:
            await connection.close()

    in_a_thread(while_everything_is_locked())


def test_retention_settings_and_statistics_are_as_the_page_says(on_postgresql: Deviceops) -> None:
    on_postgresql.out("ingest", "-", lines=json.dumps(report()) + "\n" + json.dumps(report("SUCCESS")) + "\n")

    assert "dead_letters" in run(block(PAGE, "retention"), on_postgresql).replace(" ", "_")
    assert "device_operations" in run(block(PAGE, "table-sizes"), on_postgresql)
    run(block(PAGE, "autovacuum"), on_postgresql)
    [row] = sql(on_postgresql, "SELECT reloptions FROM pg_class WHERE relname = 'device_operations'")
    assert "autovacuum_vacuum_scale_factor=0.02" in row["reloptions"]
    run(block(PAGE, "dead-letters-export"), on_postgresql)
    [letter] = (on_postgresql.directory / "dead-letters.jsonl").read_text().splitlines()
    assert json.loads(letter)["reason"] == "unknown_device_operation"


@pytest.mark.usefixtures("amqp_url")
def test_connections_are_no_more_than_the_page_says_and_its_query_shows_them(on_postgresql: Deviceops) -> None:
    def sessions() -> int:
        query = (
            "SELECT FROM pg_stat_activity WHERE application_name = 'deviceops' AND datname = current_database()"
        )
        return len(sql(on_postgresql, query))

    with serving(on_postgresql) as server, server.client() as api:
        eventually(sessions)
        assert sessions() <= 9
        assert api.get("/v0/operations/").is_success
        told = run(block(PAGE, "sessions"), on_postgresql)
        assert "(0 rows)" not in told
        assert sessions() <= 9


def test_what_failed_is_retried_by_the_commands_for_it(on_postgresql: Deviceops) -> None:
    operation, *others = (f"{digit}0000000-0000-4000-8000-000000000000" for digit in "123")
    states = ("FAILURE", "TIMEOUT", "SUCCESS")
    lines = [
        json.dumps(
            {"operation_id": operation, "device_id": f"{number}{operation[1:]}", "service_id": by, "state": to}
        )
        for number, last in enumerate(states)
        for to, by in (("CREATED", "drift-service"), (last, "deviceops"))
    ]
    on_postgresql.out("ingest", "-", lines="\n".join(lines))
    names = dict(zip(("OPERATION", "NEW", "NEW_OF_TIMEOUTS"), (operation, *others), strict=True))

    told = run(block(PAGE, "retry"), on_postgresql, **names)

    told = " ".join(told.split())  # a line is wrapped where there is a width
    assert f"operation {others[0]} created for 2 device operations of operation {operation}" in told
    assert f"operation {others[1]} created for 1 device operation of operation {operation}" in told
