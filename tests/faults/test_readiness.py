"""A database that answers and takes no batch: nothing is consumed until one was written, and nothing is given up.

The broker is told to give a message up after five deliveries, so that a worker that takes messages again and again
loses them within seconds.
"""

import asyncio
import json
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from random import Random
from uuid import uuid4

import aio_pika
import httpx
import pytest
from sqlalchemy import make_url, select, text

from tests.faults.disks import SmallDisk, small_disk
from tests.faults.fleet import Fleet
from tests.faults.outages import OF_WORKERS, is_paused, said, session
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.faults.workers import Worker
from tests.support.command import Deviceops
from tests.support.databases import NewDatabase
from tests.support.services import PrivateRabbitMQ, RabbitMQ4
from tests.support.serving import serving
from worker.amqp.topology import Topology
from worker.errors import DeviceopsError
from worker.jsonl import as_message
from worker.processing.batches import process_messages
from worker.processing.write_probe import probe_write
from worker.simulate import Disorder, simulate
from worker.store.database import Database
from worker.store.tables import dead_letters, metadata

LIMIT = 5
LIVES = LIMIT + 4
"""Lives of a worker that would each take messages, without the probe."""
AWHILE = 4
"""Seconds in which a worker would take messages and give them back again, held for one second each time."""
GIVEN_BACK = "messages returned to the broker before the commit, to be redelivered"
ROOM = 512 << 10
"""Bytes that a disk has left: a probe has room in them, a batch of reports with long reasons has not."""
LONG = "x" * 2_000
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
NUMBERED = ("dead_letters", "dead_letter_history", "operation_activity", "recounts")
"""Tables with a sequence."""
END_WORKERS = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {OF_WORKERS}"  # noqa: S608

Fault = Callable[[str], AbstractAsyncContextManager[None]]
"""Spoils the database at a URL for the length of a block."""


@pytest.fixture
def impatient(broker: PrivateRabbitMQ) -> Iterator[str]:
    """The URL of a broker that gives up soon."""
    policy = "impatient"
    broker.control("set_policy", "--apply-to", "queues", policy, "^fault-", json.dumps({"delivery-limit": LIMIT}))
    yield broker.url
    broker.control("clear_policy", policy)


@asynccontextmanager
async def read_only(database_url: str) -> AsyncIterator[None]:
    """As a standby is, or a primary whose operator wants no writes."""
    async with session(database_url) as own:
        setting = f"ALTER DATABASE {make_url(database_url).database} SET default_transaction_read_only"
        await own.execute(f"{setting} = on")
        await own.execute(END_WORKERS)
        yield
        await own.execute("SET default_transaction_read_only = off")
        await own.execute(f"{setting} = off")
        await own.execute(END_WORKERS)


@asynccontextmanager
async def locked_by_others(database_url: str) -> AsyncIterator[None]:
    """As by a migration that somebody left open."""
    async with session(database_url) as own, own.transaction():
        await own.execute("LOCK TABLE operations IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.parametrize("fault", [read_only, locked_by_others])
async def test_a_database_that_takes_no_write_costs_one_delivery(
    trials: Trials, new_scene: NewScene, impatient: str, fragile_database: str, fault: Fault
) -> None:
    settings = {"hold_timeout": 1, "database_timeout": 1, "batch_size": 20}
    worker, ledger = await new_scene(impatient, fragile_database, **settings)

    async def spoil(random: Random) -> None:
        before = len(said(worker.log, GIVEN_BACK))
        async with fault(fragile_database):
            await is_paused(worker, ledger, random)
            await worker.until(lambda: len(said(worker.log, GIVEN_BACK)) > before, "giving back")
            await asyncio.sleep(AWHILE)
            messages, consumers = await ledger.waiting()
            assert (consumers, messages > 0) == (0, True)
            assert len(said(worker.log, GIVEN_BACK)) == before + 1

    await trials.endure(f"PostgreSQL {fault.__name__.replace('_', ' ')}", spoil, ledger, worker)


@asynccontextmanager
async def without_a_right(database_url: str) -> AsyncIterator[None]:
    """As by a REVOKE, or by tables that a restore gave to somebody else."""
    role = make_url(database_url).username
    async with session(str(make_url(database_url).set(username="postgres"))) as own:
        await own.execute(f"REVOKE INSERT ON dead_letters, device_operation_activity FROM {role}")
        yield
        await own.execute(f"GRANT INSERT ON dead_letters, device_operation_activity TO {role}")


@asynccontextmanager
async def without_a_column(database_url: str) -> AsyncIterator[None]:
    """As by a migration of another version."""
    rename = "ALTER TABLE device_operations RENAME COLUMN"
    url = make_url(database_url)
    database = Database(url.set(username="postgres") if url.username else url)
    async with database.write() as connection:
        await connection.execute(text(f"{rename} reason TO why"))
    yield
    async with database.write() as connection:
        await connection.execute(text(f"{rename} why TO reason"))
    await database.close()


@asynccontextmanager
async def refusing_everything(database_url: str) -> AsyncIterator[None]:
    """As by a constraint that was meant for another table: the error says that the data is at fault."""
    alter = "ALTER TABLE device_operation_activity"
    async with session(str(make_url(database_url).set(username="postgres"))) as own:
        await own.execute(f"{alter} ADD CONSTRAINT never CHECK (false) NOT VALID")
        yield
        await own.execute(f"{alter} DROP CONSTRAINT never")


async def of_a_role(database_url: str) -> str:
    """The URL of a database for a role that has the rights that a worker needs, and no more."""
    role = f"of_{make_url(database_url).database}"
    async with session(database_url) as own:
        await own.execute(f"CREATE ROLE {role} LOGIN")
        await own.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        await own.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
    return str(make_url(database_url).set(username=role))


@pytest.mark.each_private_broker(full=True)
@pytest.mark.parametrize(
    ("kind", "fault", "words"),
    [
        ("postgresql", without_a_right, "permission denied for table de"),
        ("postgresql", without_a_column, 'column "reason"'),
        ("postgresql", refusing_everything, 'violates check constraint "never"'),
        ("sqlite", without_a_column, "reason"),
    ],
)
async def test_what_no_retry_will_mend_ends_life_after_life_without_a_delivery(
    trials: Trials,
    new_scene: NewScene,
    impatient: str,
    fragile_database: str,
    new_sqlite_database: NewDatabase,
    kind: str,
    fault: Fault,
    words: str,
) -> None:
    database_url = await of_a_role(fragile_database) if kind == "postgresql" else new_sqlite_database()
    worker, ledger = await new_scene(impatient, database_url)

    async def spoil(random: Random) -> None:
        lives = len(worker.deaths)
        async with fault(database_url):
            await ledger.publish(Fleet(random, devices=4))
            await worker.has_died(lives + LIVES)
            messages, _ = await ledger.waiting()
            assert messages > 0
        complaints = [line for line in worker.log.splitlines() if not line.startswith("{")]
        assert all(words in line for line in complaints), complaints
        assert sum("takes no batch" in line for line in complaints) >= LIVES - 1

    await trials.endure(f"{fault.__name__.replace('_', ' ')}: {LIVES} lives", spoil, ledger, worker)


@pytest.mark.each_private_broker(full=True)
async def test_a_dead_letter_says_which_limit_held_and_what_its_body_names(
    impatient: str, sqlite_database: Database, tmp_path: Path, broker: PrivateRabbitMQ
) -> None:
    ids = {"operation_id": str(uuid4()), "device_id": str(uuid4()), "service_id": "s"}
    other = {**ids, "device_id": str(uuid4())}
    bodies = {
        "device-operation.report": {**ids, "state": "CREATED"},
        "device-operation.reports": {"reports": [{**each, "state": "CREATED"} for each in (ids, other)]},
        "operation.announced": {"id": ids["operation_id"], "operation_type": "CONVERGE"},
    }
    topology = Topology(f"fault-{uuid4().hex}")
    async with await aio_pika.connect(impatient) as connection:
        exchange = await topology.declare(await connection.channel(publisher_confirms=True))
        for type_, body in bodies.items():
            message = aio_pika.Message(json.dumps(body).encode(), type=type_, message_id=type_, delivery_mode=2)
            await exchange.publish(message, "any.key")
        for _ in range(LIMIT + 1):  # a consumer that dies with all of them
            async with await aio_pika.connect(impatient) as dying:
                channel = await dying.channel()
                for _ in bodies:
                    await (await channel.get_queue(topology.reports)).get(timeout=10)
        settings = {"amqp_url": impatient, "topology_prefix": topology.prefix, "probe_port": "0"}
        url = sqlite_database.url.render_as_string()
        summary = Deviceops(tmp_path, {**settings, "database_url": url}).document("run", "--until-idle", "2")
        await topology.delete(connection)

    assert summary["dead_lettered"] == {"undeliverable": len(bodies)}
    async with sqlite_database.read() as connection:
        found = (await connection.execute(select(dead_letters))).all()
    for row in found:
        named = {name: str(value) for name in ids if (value := getattr(row, name)) is not None}
        wanted = ids if row.type.endswith("report") else ids.keys() - {"device_id"}
        wanted = {"operation_id"} if row.type.endswith("announced") else wanted
        assert named == {name: ids[name] for name in wanted}, row.type
        is_told = f"delivered more than {LIMIT} times, which was the queue's limit" in row.detail
        assert is_told or "more often than the queue's delivery limit allows" in row.detail
        assert is_told == isinstance(broker, RabbitMQ4)


async def test_a_commit_that_does_not_end_is_none(fragile_database: str) -> None:
    database = Database(make_url(fragile_database))
    async with session(fragile_database) as own:
        # Commits wait for it, reads and transactions that are rolled back do not.
        await own.execute("ALTER SYSTEM SET synchronous_standby_names = 'away'")
        await own.execute("SELECT pg_reload_conf()")
        try:
            with pytest.raises(TimeoutError):
                await database.run_with_timeout(probe_write(database), 1)
        finally:
            await own.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await own.execute("SELECT pg_reload_conf()")
    await database.run_with_timeout(probe_write(database), 20)
    await database.close()


async def test_check_ingest_and_the_api_say_in_one_line_why_nothing_can_be_written(
    fragile_database: str, tmp_path: Path
) -> None:
    url = await of_a_role(fragile_database)
    nowhere = "amqp://guest:guest@127.0.0.1:1/"
    deviceops = Deviceops(tmp_path, {"database_url": url, "amqp_url": nowhere})
    body = {"operation_id": str(uuid4()), "device_id": str(uuid4()), "state": "CREATED", "service_id": "s"}

    def refused() -> httpx.Response:
        with serving(deviceops) as server, server.client() as client:
            path = f"/v0/operations/{body['operation_id']}/devices/{body['device_id']}/"
            response = client.put(path, json={**body, "operation_type": "CONVERGE"})
        assert not [line for line in server.log if "exception" in line or line["event"] == "unhandled error"]
        return response

    for fault, of, words in (
        (without_a_right, url, "permission denied for table de"),
        (read_only, fragile_database, "in a read-only transaction"),
    ):
        async with fault(of):
            checked = await asyncio.to_thread(deviceops, "check")
            response = await asyncio.to_thread(refused)
            assert (checked.returncode, words in checked.stderr) == (1, True), checked.stderr
            assert ": ready" not in checked.stdout
            assert response.status_code == httpx.codes.SERVICE_UNAVAILABLE, response.text
    async with without_a_right(url):
        ingested = await asyncio.to_thread(deviceops, "ingest", "-", lines=json.dumps(body))
        [complaint] = [line for line in ingested.stderr.splitlines() if not line.startswith("{")]
        assert (ingested.returncode, "permission denied for table de" in complaint) == (1, True)


async def test_any_right_that_a_batch_needs_is_missed_before(fragile_database: str) -> None:
    database = Database(make_url(await of_a_role(fragile_database)))
    role = database.url.username
    rights = {(f"ON TABLE {table}", each) for table in metadata.tables for each in RIGHTS}
    rights |= {(f"ON SEQUENCE {table}_id_seq", "USAGE") for table in metadata.tables if table in NUMBERED}
    needed = set()
    async with session(fragile_database) as own:
        for on, right in rights:
            await own.execute(f"REVOKE {right} {on} FROM {role}")
            try:
                await probe_write(database)
            except DeviceopsError as error:
                assert f"takes no batch: permission denied for {on[3:].lower()}" in str(error)  # noqa: PT017
                needed.add((on, right))
                await own.execute(f"GRANT {right} {on} TO {role}")
    assert needed
    assert rights - needed

    # Without what the probe did not notice:
    disorder = Disorder(disorder=0.3, duplicates=0.1, conflicts=0.05, malformed=0.02, early=0.2)
    lines = list(simulate(2, 100, 1, disorder))
    tally = await process_messages(database, [as_message(line.encode()) for line in lines])

    assert (tally.received, tally.released > 0, tally.duplicate > 0) == (len(lines), True, True)
    await database.close()


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """Room for an SQLite file and its log."""
    with small_disk(megabytes=40) as disk:
        yield disk


def cut_log(database: str) -> bool:
    """Whether the write-ahead log of an SQLite file could be emptied: no transaction was in the way."""
    with closing(sqlite3.connect(database, timeout=0)) as connection:
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy


async def freeze_at_rest(worker: Worker, database: str) -> None:
    """Stop the process between two transactions, with an empty log, whose length would be room on a full disk."""
    async with asyncio.timeout(10):
        worker.signal(signal.SIGSTOP)
        while not await asyncio.to_thread(cut_log, database):
            worker.signal(signal.SIGCONT)
            await asyncio.sleep(0.05)
            worker.signal(signal.SIGSTOP)


@pytest.mark.alone  # its bounds of time are of a machine that does nothing else
async def test_a_disk_that_has_room_for_a_small_batch_only_costs_one_delivery(
    trials: Trials, new_scene: NewScene, impatient: str, disk: SmallDisk, new_sqlite_database: NewDatabase
) -> None:
    url = make_url(new_sqlite_database())
    url = url.set(database=str(shutil.move(url.database or "", disk.folder)))
    worker, ledger = await new_scene(impatient, str(url), hold_timeout=1)

    async def fill(random: Random) -> None:
        before = len(said(worker.log, GIVEN_BACK))
        many = Fleet(random, devices=200)
        many.reports = {
            id_: json.dumps({**json.loads(body), "reason": LONG}).encode() for id_, body in many.reports.items()
        }
        await freeze_at_rest(worker, url.database or "")  # so that it gets all of them at once
        await ledger.publish(many)
        await asyncio.to_thread(disk.fill, ROOM)
        worker.signal(signal.SIGCONT)
        await worker.until(lambda: len(said(worker.log, GIVEN_BACK)) > before, "giving back")
        await asyncio.sleep(AWHILE)
        messages, consumers = await ledger.waiting()
        assert (consumers, messages > 0) == (0, True)
        assert len(said(worker.log, GIVEN_BACK)) == before + 1
        disk.make_room()

    await trials.endure("disk nearly full", fill, ledger, worker)
