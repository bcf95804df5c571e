"""What passes is waited out: a database that is down, full or locked, or gives no answer, costs no report."""

import asyncio
import gc
from contextlib import suppress
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import event, make_url, text

from statemachine import Verdict
from tests.support.databases import NewDatabase, read
from tests.support.poison import report
from tests.support.services import PrivatePostgreSQL
from worker.model.outcomes import Tally
from worker.processing import batches
from worker.processing.batches import process_messages
from worker.store.bulk import WORTH_COPYING
from worker.store.database import Database
from worker.store.errors import Unreachable
from worker.store.schema import migrate


async def test_a_database_that_is_away_is_waited_for_and_fills_no_dead_letters() -> None:
    with PrivatePostgreSQL() as server:
        database = Database(make_url(server.url).set(drivername="postgresql+asyncpg"))
        await migrate(database)
        await process_messages(database, [report(uuid4())])
        server.kill()
        settling = asyncio.create_task(process_messages(database, [report(uuid4())]))
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
        settling = asyncio.create_task(process_messages(postgresql_database, [report(uuid4())]))
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

    tally = await process_messages(postgresql_database, [report(uuid4()) for _ in range(count)])

    assert tally.document() == {**Tally().document(), "received": count, "applied": count}


async def test_a_full_disk_under_sqlite_is_waited_out_and_is_no_dead_letter(sqlite_database: Database) -> None:
    pages = {"limit": 40}

    @event.listens_for(sqlite_database.engine.sync_engine, "checkout")
    def limit(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages['limit']}")

    messages = [report(uuid4()) for _ in range(500)]
    settling = asyncio.create_task(process_messages(sqlite_database, messages))
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
            await sqlite_database.run_with_timeout(wait_for_a_dead_connection(), 0.1)
    over.set()
    assert (await process_messages(sqlite_database, [report(uuid4())])).verdicts == {Verdict.APPLIED: 1}


async def test_patience_ends_with_the_databases_own_error(new_postgresql_database: NewDatabase) -> None:
    database = Database(make_url(new_postgresql_database()).set(port=1))

    with pytest.raises(Unreachable, match=r"^127\.0\.0\.1, port 1: Connection refused$"):
        await process_messages(database, [report(uuid4())], patience=0.2)
    await database.close()


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

    tally = await process_messages(postgresql_database, [report(uuid4()) for _ in range(2 * WORTH_COPYING)])

    assert tally.document() == {**Tally().document(), "received": 100, "applied": 100}


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

    assert await batches.retry_transient(sqlite_database, None, work) == 1_100


async def test_a_batch_leaves_nothing_to_the_collector(database: Database) -> None:
    """Whose pauses are what the slowest reports would wait for."""
    operation = uuid4()

    async def settle_batches(count: int) -> None:
        for _ in range(count):
            await process_messages(database, [report(uuid4(), operation=operation)])

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
        await batches.retry_transient(sqlite_database, 0.1, work)

    assert tries == 1
