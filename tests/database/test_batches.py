"""A batch is settled whatever it holds: it is cut to size, what breaks is isolated, and a defect is raised."""

import asyncio
import json
from dataclasses import replace
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import DBAPIError

from statemachine import Verdict
from tests.support.databases import NewDatabase, read
from tests.support.poison import POISON, message, refuse_poison, report
from worker.errors import DeviceopsError
from worker.model import parsing as parsing_of
from worker.model.contract import MAX_REPORTS
from worker.model.dead_letter import DeadLetter
from worker.model.messages import ANNOUNCEMENT, REPORTS, Message, Parsed
from worker.model.outcomes import Reason
from worker.processing import batches
from worker.processing.batches import MAX_WEIGHT, process_messages
from worker.processing.direct import process_message
from worker.store.bulk import WORTH_COPYING
from worker.store.database import Database
from worker.store.tables import dead_letters

OPERATION = UUID(int=10)


async def test_a_dead_letter_that_is_refused_too_is_kept_with_what_is_certain(database: Database) -> None:
    async with database.write() as connection:
        refused = "new.message_id = 'cursed' OR new.service_id = 'poison-service'"
        if database.is_sqlite:
            raising = "BEGIN SELECT RAISE(ABORT, 'cursed \u2026'); END"
            statements = [f"CREATE TRIGGER refuse BEFORE INSERT ON dead_letters WHEN {refused} {raising}"]
        else:
            raising = "BEGIN RAISE EXCEPTION 'cursed \u2026' USING ERRCODE = '22021'; END"
            statements = [
                f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {raising} $$",
                f"CREATE TRIGGER refuse BEFORE INSERT ON dead_letters FOR EACH ROW WHEN ({refused}) "
                "EXECUTE FUNCTION refuse()",
            ]
        for statement in statements:
            await connection.execute(text(statement))
    registering = report(UUID(int=1), POISON)
    parked = replace(registering, content=registering.body.replace(b"CREATED", b"SUCCESS"))
    unreadable = replace(message({}), message_id="cursed")

    tally = await process_messages(database, [report(UUID(int=2)), parked, unreadable, report(UUID(int=3))])

    assert tally.document()["applied"] == 2
    assert tally.dead_lettered == {Reason.MALFORMED: 2}
    async with database.read() as connection:
        rows = (await connection.execute(select(dead_letters).order_by(dead_letters.c.id))).all()
    assert [row.body for row in rows] == [parked.body, unreadable.body]
    assert {(row.message_id, row.service_id, row.operation_id) for row in rows} == {(None, None, None)}
    assert all("the database refuses it: " in row.detail and "cursed \\u2026" in row.detail for row in rows)
    again = await process_messages(database, [parked, unreadable])
    assert again.duplicate == 2


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

    tally = await process_messages(database, messages)

    assert tally.verdicts[Verdict.APPLIED] == count - len(poisoned)
    assert tally.dead_lettered[Reason.MALFORMED] == len(poisoned)
    stored = await read(database)
    registered = {device for operation in stored.operations.values() for device in operation.devices}
    assert registered == {device for n, device in enumerate(devices) if n not in poisoned}
    assert {device for _, _, device in stored.dead_letters} == {devices[n] for n in poisoned}
    async with database.read() as connection:
        details = (await connection.execute(text("SELECT detail FROM dead_letters"))).scalars().all()
    assert all(detail.startswith("the database refuses it: ") and "refuse" in detail for detail in details)


async def test_what_a_trigger_refuses_of_one_message_ends_no_worker_whatever_error_it_gives(
    database: Database,
) -> None:
    """On PostgreSQL it need not say that the data is at fault, and the message would come again at each start."""
    async with database.write() as connection:
        for statement in raising(database, "new.service_id = 'poison-service'"):
            await connection.execute(text(statement))

    tally = await process_messages(
        database, [report(UUID(int=n), POISON if n == 2 else "drift") for n in range(1, 6)]
    )

    assert (tally.verdicts[Verdict.APPLIED], tally.dead_lettered) == (4, {Reason.MALFORMED: 1})


async def test_a_database_that_refuses_whatever_it_gets_makes_no_dead_letters(database: Database) -> None:
    async with database.write() as connection:
        for statement in raising(database, "new.state <> 0", of_data=True):
            await connection.execute(text(statement))

    with pytest.raises(DeviceopsError, match="takes no batch: not now"):
        await process_messages(database, [report(UUID(int=n)) for n in range(1, 6)])

    assert (await read(database)).dead_letters.total() == 0


def raising(database: Database, condition: str, *, of_data: bool = False) -> list[str]:
    """Statements that have the database refuse some of the history."""
    on = "BEFORE INSERT ON device_operation_activity"
    if database.is_sqlite:
        return [f"CREATE TRIGGER raising {on} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'not now'); END"]
    code = "23514" if of_data else "P0001"
    body = f"BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{code}'; END"
    return [
        f"CREATE FUNCTION raising() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$",
        f"CREATE TRIGGER raising {on} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION raising()",
    ]


async def test_no_error_quotes_the_row_that_was_refused(database: Database) -> None:
    await refuse_poison(database)
    without = report(UUID(int=1), POISON)
    poison = replace(without, content=without.body.replace(b"}", b', "reason": "a secret"}'))

    await process_messages(database, [poison])

    async with database.read() as connection:
        [detail] = (await connection.execute(select(dead_letters.c.detail))).scalars()
    assert detail.startswith("the database refuses it: ")
    assert "secret" not in detail


async def test_who_waits_is_told_what_a_rule_of_the_database_refuses(database: Database) -> None:
    async with database.write() as connection:
        for statement in raising(database, "new.service_id = 'poison-service'"):
            await connection.execute(text(statement))

    given = await process_message(database, report(UUID(int=1), POISON))

    assert isinstance(given.outcome, DeadLetter)
    assert (given.outcome.reason, given.outcome.detail) == (Reason.MALFORMED, "the database refuses it: not now")
    assert (await process_message(database, report(UUID(int=1)))).outcome == Verdict.APPLIED


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
    tally = await process_messages(database, [message({"reports": part}, REPORTS) for part in parts])
    tally.add(await process_messages(database, [message(announcement, ANNOUNCEMENT)]))

    assert tally.verdicts[Verdict.APPLIED] == len(bodies)
    stored = await read(database)
    assert stored.operations[operation].counters["resolved_device_count"] == len(bodies)


@pytest.mark.parametrize("count", [1, WORTH_COPYING])
async def test_a_defect_of_the_program_is_raised_not_kept(database: Database, count: int) -> None:
    async with database.write() as connection:
        await connection.execute(text("ALTER TABLE device_operation_activity RENAME verdict TO something_else"))

    with pytest.raises((DBAPIError, asyncpg.UndefinedColumnError)):
        async with asyncio.timeout(10):
            await process_messages(database, [report(uuid4()) for _ in range(count)], patience=1)


async def test_batches_find_their_rows_by_index_though_the_tables_were_empty(
    new_postgresql_database: NewDatabase,
) -> None:
    url = make_url(new_postgresql_database())
    devices = [uuid4() for _ in range(500)]
    registrations = [report(device, operation=OPERATION) for device in devices]
    states = [{**json.loads(each.body), "state": "SUCCESS"} for each in registrations]

    database = Database(url, for_batches=True)
    for part in [registrations[:1], registrations[1:], *([message(state)] for state in states[:50])]:
        await process_messages(database, part)
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
    parsing = parsing_of.parse

    def parse(one: Message) -> list[Parsed]:
        told.append("read")
        return parsing(one)

    monkeypatch.setattr(batches, "parse", parse)
    sqlite_database.on_commit = lambda _: told.append("committed")

    await process_messages(sqlite_database, messages)

    assert MAX_REPORTS < MAX_WEIGHT < 2 * MAX_REPORTS + 1, "the first two fill a transaction"
    assert told[:4] == ["read", "read", "read", "committed"]
