"""A batch is settled whatever happens: what breaks is isolated, what passes is waited out, the rest is raised."""

import asyncio
import gc
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError

from statemachine import Verdict
from tests.databases import NewDatabase, read
from tests.services import PrivatePostgreSQL
from worker import batches
from worker import messages as messages_of
from worker.batches import MAX_WEIGHT, settle
from worker.contract import MAX_REPORTS
from worker.messages import ANNOUNCEMENT, REPORTS, Item, Message
from worker.outcomes import Reason, Tally
from worker.store.database import Database
from worker.store.rows import WORTH_COPYING
from worker.store.schema import migrate

POISON = "poison-service"
OPERATION = UUID(int=10)


def message(body: dict[str, Any], type_: str | None = None) -> Message:
    return Message(json.dumps(body).encode(), datetime.now(UTC), type=type_)


def report(device: UUID, service: str = "drift-service", operation: UUID | None = None) -> Message:
    return message(
        {
            "operation_id": str(operation or uuid4()),
            "device_id": str(device),
            "state": "CREATED",
            "service_id": service,
        }
    )


async def refuse_poison(database: Database) -> None:
    """Make the database refuse history of one service: a fault of data that no check of ours foresees."""
    async with database.write() as connection:
        if database.is_sqlite:
            await connection.execute(
                text(
                    "CREATE TRIGGER refuse BEFORE INSERT ON device_operation_activity "
                    "WHEN new.service_id = 'poison-service' BEGIN SELECT RAISE(ABORT, 'poison is refused'); END"
                )
            )
        else:
            constraint = "ADD CONSTRAINT refuse CHECK (service_id <> 'poison-service')"
            await connection.execute(text(f"ALTER TABLE device_operation_activity {constraint}"))


@pytest.mark.parametrize(
    ("count", "poisoned"),
    [(7, {0}), (7, {6}), (7, {0, 1, 5}), (7, set(range(7))), (3 * WORTH_COPYING, {0, 2 * WORTH_COPYING})],
)
async def test_data_that_breaks_a_transaction_is_kept_alone_and_its_batch_mates_commit(
    database: Database, count: int, poisoned: set[int]
) -> None:
    await refuse_poison(database)
    devices = [uuid4() for _ in range(count)]
    messages = [report(device, POISON if n in poisoned else "drift") for n, device in enumerate(devices)]

    tally = await settle(database, messages)

    assert tally.verdicts[Verdict.APPLIED] == count - len(poisoned)
    assert tally.dead_lettered[Reason.MALFORMED] == len(poisoned)
    stored = await read(database)
    registered = {device for operation in stored.operations.values() for device in operation.devices}
    assert registered == {device for n, device in enumerate(devices) if n not in poisoned}
    assert {device for _, _, device in stored.dead_letters} == {devices[n] for n in poisoned}
    async with database.read() as connection:
        details = (await connection.execute(text("SELECT detail FROM dead_letters"))).scalars().all()
    assert all(detail.startswith("the database refuses it: ") and "refuse" in detail for detail in details)


async def test_many_bulk_messages_are_cut_into_transactions_of_bounded_size(database: Database) -> None:
    operation = uuid4()
    bodies = [json.loads(report(uuid4(), operation=operation).body) for _ in range(3 * MAX_WEIGHT)]
    halves = [bodies[: len(bodies) // 2], bodies[len(bodies) // 2 :]]
    announcement = {
        "id": str(operation),
        "operation_type": "CONVERGE",
        "device_ids": [body["device_id"] for body in bodies],
    }

    parts = [half[at : at + MAX_REPORTS] for half in halves for at in range(0, len(half), MAX_REPORTS)]
    tally = await settle(database, [message({"reports": part}, REPORTS) for part in parts])
    tally.add(await settle(database, [message(announcement, ANNOUNCEMENT)]))

    assert tally.verdicts[Verdict.APPLIED] == len(bodies)
    stored = await read(database)
    assert stored.operations[operation].counters["resolved_device_count"] == len(bodies)


async def test_a_database_that_is_away_is_waited_for_and_fills_no_dead_letters() -> None:
    with PrivatePostgreSQL() as server:
        database = Database(make_url(server.url).set(drivername="postgresql+asyncpg"))
        await migrate(database)
        await settle(database, [report(uuid4())])
        server.kill()
        settling = asyncio.create_task(settle(database, [report(uuid4())]))
        await asyncio.sleep(0.5)
        assert not settling.done()
        await asyncio.to_thread(server.start)
        tally = await settling
        stored = await read(database)
        await database.close()
    assert tally.verdicts[Verdict.APPLIED] == 1
    assert len(stored.operations) == 2
    assert not stored.dead_letters


async def test_a_lock_that_is_held_too_long_is_waited_out(postgresql_database: Database) -> None:
    url = postgresql_database.url
    holder = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
    await holder.execute(f"ALTER DATABASE {url.database} SET lock_timeout = '100ms'")
    async with holder.transaction():
        await holder.execute("LOCK TABLE device_operations IN EXCLUSIVE MODE")
        settling = asyncio.create_task(settle(postgresql_database, [report(uuid4())]))
        await asyncio.sleep(0.5)
        assert not settling.done()
    await holder.close()
    assert (await settling).verdicts[Verdict.APPLIED] == 1


@pytest.mark.parametrize(
    "sqlstate",
    [
        "40P01",  # deadlock
        "40001",  # serialization failure
        "53100",  # disk full
        "53300",  # too many connections
        "55P03",  # lock not available
        "57014",  # cancelled by a timeout
    ],
)
@pytest.mark.parametrize("count", [2, WORTH_COPYING])
async def test_what_postgresql_fails_at_for_a_while_is_tried_again_and_is_no_dead_letter(
    postgresql_database: Database, sqlstate: str, count: int
) -> None:
    async with postgresql_database.write() as connection:
        await connection.execute(text("CREATE SEQUENCE tries"))  # which no rollback turns back
        await connection.execute(
            text(
                "CREATE FUNCTION fail_twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF nextval('tries') < 3 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '{sqlstate}'; END IF; "
                "RETURN new; END $$"
            )
        )
        await connection.execute(
            text(
                "CREATE TRIGGER fail BEFORE INSERT ON device_operation_activity "
                "FOR EACH STATEMENT EXECUTE FUNCTION fail_twice()"
            )
        )

    tally = await settle(postgresql_database, [report(uuid4()) for _ in range(count)])

    assert tally.document() == {**Tally().document(), "received": count, "applied": count}


async def test_a_full_disk_under_sqlite_is_waited_out_and_is_no_dead_letter(sqlite_database: Database) -> None:
    pages = {"limit": 40}

    @event.listens_for(sqlite_database.engine.sync_engine, "checkout")
    def limit(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages['limit']}")

    messages = [report(uuid4()) for _ in range(500)]
    settling = asyncio.create_task(settle(sqlite_database, messages))
    await asyncio.sleep(0.5)
    assert not settling.done()
    pages["limit"] = 100_000

    assert (await settling).verdicts == {Verdict.APPLIED: len(messages)}


async def test_work_that_does_not_even_end_when_it_is_cancelled_is_left_behind(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.store.database.CLOSE_TIMEOUT", 0.1)
    over = asyncio.Event()

    async def wait_for_a_dead_connection() -> None:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError, match=r"does not answer within 0\.1 s"):
            await sqlite_database.answered(wait_for_a_dead_connection(), 0.1)
    over.set()
    assert (await settle(sqlite_database, [report(uuid4())])).verdicts == {Verdict.APPLIED: 1}


async def test_patience_ends_with_the_databases_own_error(new_postgresql_database: NewDatabase) -> None:
    database = Database(make_url(new_postgresql_database()).set(port=1))

    with pytest.raises(ConnectionRefusedError):
        await settle(database, [report(uuid4())], patience=0.2)
    await database.close()


@pytest.mark.parametrize("count", [1, WORTH_COPYING])
async def test_a_defect_of_the_program_is_raised_not_kept(database: Database, count: int) -> None:
    async with database.write() as connection:
        await connection.execute(text("ALTER TABLE device_operation_activity RENAME verdict TO something_else"))

    with pytest.raises((DBAPIError, asyncpg.UndefinedColumnError)):
        async with asyncio.timeout(10):
            await settle(database, [report(uuid4()) for _ in range(count)], patience=1)


async def test_a_line_that_is_cut_within_a_copy_is_waited_out(postgresql_database: Database) -> None:
    async with postgresql_database.write() as connection:
        await connection.execute(text("CREATE SEQUENCE tries"))
        await connection.execute(
            text(
                "CREATE FUNCTION end_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF nextval('tries') = 70 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; "
                "RETURN new; END $$"
            )
        )
        await connection.execute(
            text(
                "CREATE TRIGGER cut BEFORE INSERT ON device_operation_activity "
                "FOR EACH ROW EXECUTE FUNCTION end_once()"
            )
        )

    tally = await settle(postgresql_database, [report(uuid4()) for _ in range(2 * WORTH_COPYING)])

    assert tally.document() == {**Tally().document(), "received": 100, "applied": 100}


async def test_batches_find_their_rows_by_index_though_the_tables_were_empty(
    new_postgresql_database: NewDatabase,
) -> None:
    url = make_url(new_postgresql_database())
    devices = [uuid4() for _ in range(500)]
    registrations = [report(device, operation=OPERATION) for device in devices]
    states = [{**json.loads(each.body), "state": "SUCCESS"} for each in registrations]

    database = Database(url, for_batches=True)
    for part in [registrations[:1], registrations[1:], *([message(state)] for state in states[:50])]:
        await settle(database, part)
    await database.close()

    connection = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        scans = await connection.fetch("SELECT relname, seq_scan FROM pg_stat_user_tables WHERE seq_scan > 0")
    finally:
        await connection.close()
    assert not {"device_operations", "device_operation_activity"} & {row["relname"] for row in scans}


async def test_the_next_transaction_is_read_while_the_database_has_this_one(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = uuid4()
    parts = [[json.loads(report(uuid4(), operation=operation).body) for _ in range(MAX_REPORTS)] for _ in range(3)]
    messages = [message({"reports": part}, REPORTS) for part in parts]
    told: list[str] = []
    parsing = messages_of.parse

    def parse(one: Message) -> list[Item]:
        told.append("read")
        return parsing(one)

    monkeypatch.setattr(batches, "parse", parse)
    sqlite_database.on_commit = lambda _: told.append("committed")

    await settle(sqlite_database, messages)

    assert MAX_REPORTS < MAX_WEIGHT < 2 * MAX_REPORTS + 1, "the first two fill a transaction"
    assert told[:4] == ["read", "read", "read", "committed"]


async def test_an_outage_may_last_for_any_number_of_tries(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "LONGEST_PAUSE", 0)
    tries = 0

    async def work() -> int:
        nonlocal tries
        tries += 1
        if tries < 1_100:  # twice the time for each would be beyond all numbers
            raise ConnectionRefusedError
        return tries

    assert await batches.waiting_out_failures(sqlite_database, None, work) == 1_100


async def test_a_batch_leaves_nothing_to_the_collector(database: Database) -> None:
    """Whose pauses are what the slowest reports would wait for."""
    operation = uuid4()

    async def settle_batches(count: int) -> None:
        for _ in range(count):
            await settle(database, [report(uuid4(), operation=operation)])

    await settle_batches(3)
    gc.collect()
    gc.disable()
    try:
        await settle_batches(20)
        left_behind = gc.collect()
    finally:
        gc.enable()

    assert left_behind < 20, "cycles in every batch"


async def test_patience_counts_from_the_first_try(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_database, "answer_timeout", 0.2)
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await batches.waiting_out_failures(sqlite_database, 0.1, work)

    assert tries == 1
