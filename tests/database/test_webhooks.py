"""Webhooks: what is committed comes to every receiver, whatever receivers do, and each gets what is owed to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from sqlalchemy import select, text, update

from tests.support.receiving import Receiver, answering, dripping, hanging, huge, receiving, slow
from tests.support.sending import message, report_body
from worker.config.settings import Settings
from worker.model import changes
from worker.model.changes import ChangeType, Told
from worker.processing.batches import process_messages
from worker.store import change_log, outbox, webhook_deliveries, webhooks
from worker.store.change_reader import ChangeReader
from worker.store.database import Database
from worker.store.tables import change_cursors
from worker.store.tables import webhook_deliveries as owed_rows
from worker.store.tables import webhooks as webhook_rows
from worker.webhooks import client, dispatcher, schedule, sender, upkeep
from worker.webhooks.dispatcher import Dispatcher

PATIENCE = 20


@asynccontextmanager
async def dispatching(database: Database, setting: str, limit: int = 100_000) -> AsyncIterator[Dispatcher]:
    """A worker's part in webhooks for a block; it has registered them when the block begins."""
    settings = Settings(webhooks=setting, _env_file=None)
    assert settings.webhooks is not None
    reader = ChangeReader(database, webhooks.CURSOR, 86_400_000, 1_000_000)
    made = Dispatcher(database, settings.webhooks, limit, reader)
    stop = asyncio.Event()
    running = asyncio.create_task(made.run(stop))
    try:
        await until(lambda: bool(made.upkeep.states))
        yield made
    finally:
        stop.set()
        await asyncio.wait_for(running, 10)


async def until(condition: Callable[[], object | Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            await asyncio.sleep(0.02)


async def happen(database: Database, number: int = 1) -> list[str]:
    """Operations begin; gives their ids."""
    ids = [uuid4() for _ in range(number)]
    await process_messages(database, [message(report_body(id_, uuid4(), "CREATED")) for id_ in ids])
    return list(map(str, ids))


async def owed(database: Database) -> dict[str, int]:
    async with database.read() as connection:
        return {name: each.number for name, each in (await webhook_deliveries.owed(connection)).items()}


async def state(database: Database, name: str) -> webhooks.WebhookState:
    async with database.read() as connection:
        (found,) = [each for each in await webhooks.states(connection) if each.name == name]
        return found


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr(schedule, "PAUSES", [20] * 9)
    monkeypatch.setattr(schedule, "LONGEST_REST", 20)
    monkeypatch.setattr(sender, "POLL", 0.05)


def operations(receiver: Receiver, path: str) -> list[str]:
    return [each.body["data"]["operation_id"] for each in receiver.at(path)]


async def test_each_committed_change_comes_to_each_webhook_with_its_id(database: Database) -> None:
    with receiving() as receiver:
        async with dispatching(database, receiver.setting("/a", "/b")) as made:
            begun = await happen(database, 30)
            await until(lambda: len(receiver.at("/a")) == len(receiver.at("/b")) == 30)
            await until(lambda: sum(made.outcomes.values()) == 60)
            async with database.read() as connection:
                told = await change_log.read_after(connection, 0, 100)
    assert receiver.ids("/a") == receiver.ids("/b") == {str(change.id): 1 for change in told}
    assert sorted(operations(receiver, "/a")) == sorted(begun)
    assert made.outcomes == {("a", "delivered"): 30, ("b", "delivered"): 30}
    assert await owed(database) == {}


async def test_a_new_webhook_begins_with_what_happens_after_it(database: Database) -> None:
    await happen(database, 3)
    async with database.write() as connection:
        await outbox.number(connection)
    with receiving() as receiver:
        async with dispatching(database, receiver.setting("/old")):
            await happen(database)
            await until(lambda: receiver.at("/old"))
        async with dispatching(database, receiver.setting("/old", "/new")):
            (last,) = await happen(database)
            await until(lambda: len(receiver.at("/old")) == 2 and receiver.at("/new"))
    assert operations(receiver, "/new") == [last]


async def test_a_webhook_receives_the_types_that_it_names(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_told", Told.ALL)
    types = [ChangeType.DEVICE_OPERATIONS_CHANGED.value]
    with receiving() as receiver:
        both = {**json.loads(receiver.setting("/some", types=types)), **json.loads(receiver.setting("/all"))}
        async with dispatching(database, json.dumps(both)):
            await happen(database)
            await until(lambda: len(receiver.at("/all")) == 2 and receiver.at("/some"))
            await until(lambda: owed_is_empty(database))
    assert [each.type for each in receiver.at("/some")] == types


async def owed_to(database: Database, **numbers: int) -> bool:
    return await owed(database) == numbers


async def owed_is_empty(database: Database) -> bool:
    return not await owed(database)


@pytest.mark.usefixtures("at_once")
async def test_what_fails_comes_again_with_the_same_id_and_a_new_signature_until_it_is_taken(
    database: Database,
) -> None:
    with receiving(a=answering(503)) as receiver:
        async with dispatching(database, receiver.setting("/a")):
            await happen(database)
            await until(lambda: len(receiver.at("/a")) >= 3)
            assert (await state(database, "a")).failure_status == 503
            receiver.behaviours["/a"] = answering(200)
            await until(lambda: owed_is_empty(database))
    assert len(receiver.ids("/a")) == 1
    found = await state(database, "a")
    assert (found.failures, found.success_status) == (0, 200)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (answering(302, Location="/elsewhere"), "answered 302, a redirect, which is not followed"),
        (answering(500), "answered 500, an error"),
        (hanging(), "no answer within 0.3 s"),
        (dripping, "no answer within 0.3 s"),
    ],
    ids=["redirect", "error", "hangs", "drips"],
)
async def test_a_message_is_given_up_after_its_last_attempt(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch, behaviour: Callable[..., None], why: str
) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.3)
    monkeypatch.setattr(schedule, "ATTEMPTS", 3)
    with receiving(a=behaviour) as receiver:
        async with dispatching(sqlite_database, receiver.setting("/a")) as made:
            await happen(sqlite_database)
            await until(lambda: made.outcomes["a", "given_up"])
            found = await state(sqlite_database, "a")
            assert (found.given_up, found.failure) == (1, why)
            assert made.outcomes["a", "failed"] == len(receiver.at("/a")) == 3
            assert receiver.at("/elsewhere") == []
            assert await owed(sqlite_database) == {}


async def test_an_endless_answer_is_not_read(sqlite_database: Database) -> None:
    with receiving(a=huge) as receiver:
        async with dispatching(sqlite_database, receiver.setting("/a")) as made:
            await happen(sqlite_database)
            await until(lambda: made.outcomes["a", "delivered"])


async def test_410_switches_off_for_all_workers_and_enabling_switches_on(database: Database) -> None:
    with receiving(a=answering(410)) as receiver:
        setting = receiver.setting("/a", "/b")
        async with dispatching(database, setting):
            (first,) = await happen(database)
            await until(lambda: state_is_off(database))
        receiver.behaviours["/a"] = answering(204)
        async with dispatching(database, setting):
            await happen(database)
            await until(lambda: len(receiver.at("/b")) == 2)
            assert len(receiver.at("/a")) == 1
            await until(lambda: owed_to(database, a=1))  # what it had not taken; since then nothing is owed to it
            async with database.write() as connection:
                assert await webhooks.enable(connection, "a")
            await until(lambda: len(receiver.at("/a")) == 2)
            (last,) = await happen(database)
            await until(lambda: len(receiver.at("/a")) == 3)
    assert operations(receiver, "/a") == [first, first, last]


async def state_is_off(database: Database) -> bool:
    return (await state(database, "a")).off_at is not None


async def test_a_dead_receiver_delays_no_other_webhook_and_no_report(database: Database) -> None:
    with receiving(dead=hanging()) as receiver:
        async with dispatching(database, receiver.setting("/dead", "/alive")):
            for _ in range(20):
                await asyncio.wait_for(happen(database), 2)
            await until(lambda: len(receiver.at("/alive")) == 20)
            assert 1 <= len(receiver.at("/dead")) <= sender.AT_ONCE


@pytest.mark.usefixtures("at_once")
async def test_a_webhook_that_fails_is_attempted_one_at_a_time(database: Database) -> None:
    with receiving(a=answering(500)) as receiver:
        async with dispatching(database, receiver.setting("/a")):
            await happen(database)
            await until(lambda: receiver.at("/a"))
            await until(lambda: state_is_failing(database))
            receiver.behaviours["/a"] = slow(0.05, 500)
            receiver.most_at_once = 0
            await happen(database, 50)
            await until(lambda: len(receiver.at("/a")) >= 10)
    assert receiver.most_at_once == 1


async def state_is_failing(database: Database) -> bool:
    return bool((await state(database, "a")).failures)


async def test_two_workers_share_what_is_owed_and_send_each_message_once(database: Database) -> None:
    with receiving(a=slow(0.02, 204)) as receiver:
        setting = receiver.setting("/a")
        async with dispatching(database, setting) as one, dispatching(database, setting) as other:
            for _ in range(10):
                await happen(database, 20)
            await until(lambda: one.outcomes.total() + other.outcomes.total() == 200)
    assert set(receiver.ids("/a").values()) == {1}
    assert receiver.most_at_once <= sender.AT_ONCE


async def test_what_a_worker_died_with_is_sent_by_another_after_its_lease(database: Database) -> None:
    with receiving() as receiver:
        setting = receiver.setting("/a")
        async with dispatching(database, setting):
            pass
        await happen(database)
        async with database.write() as connection:
            await outbox.number(connection)
            await webhook_deliveries.owe(connection, 0, 1)
            (leased,) = await webhook_deliveries.lease(connection, "a", uuid4(), 1_500, 10, 10)
        async with dispatching(database, setting):
            await asyncio.sleep(0.5)
            assert receiver.at("/a") == []
            await until(lambda: receiver.at("/a"))
            await until(lambda: owed_is_empty(database))
        async with database.write() as connection:  # the worker was not dead, but stood still
            assert not await webhook_deliveries.delivered(connection, "a", [leased], 200)
    assert receiver.ids("/a") == {str(leased.id): 1}


async def test_an_attempt_that_the_end_breaks_off_is_left_to_others_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "FINISH", 0.1)
    with receiving(a=hanging()) as receiver:
        setting = receiver.setting("/a")
        async with dispatching(database, setting):
            await happen(database)
            await until(lambda: receiver.at("/a"))
        receiver.behaviours["/a"] = answering(204)
        async with dispatching(database, setting):
            await until(lambda: owed_is_empty(database))
    assert list(receiver.ids("/a").values()) == [2]


async def test_too_much_is_dropped_device_operations_first_and_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_told", Told.ALL)
    monkeypatch.setattr(upkeep, "INTERVAL", 0.1)
    with receiving(a=hanging()) as receiver:
        async with dispatching(database, receiver.setting("/a"), limit=12) as made:
            await happen(database, 10)
            await until(lambda: made.outcomes["a", "dropped"] == 8)
            async with database.read() as connection:
                kept = (await connection.execute(select(owed_rows.c.type))).scalars().all()
            assert kept.count(ChangeType.OPERATION_CHANGED.value) == 10
            assert kept.count(ChangeType.DEVICE_OPERATIONS_CHANGED.value) == 2
            assert (await state(database, "a")).dropped == 8


async def test_what_is_owed_to_a_removed_webhook_is_removed_after_a_day(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "INTERVAL", 0.1)
    with receiving(a=hanging()) as receiver:
        async with dispatching(database, receiver.setting("/a")):
            await happen(database)
            await until(lambda: receiver.at("/a"))
        reader = ChangeReader(database, webhooks.CURSOR, 86_400_000, 1_000_000)
        without = Dispatcher(database, {}, 100, reader)
        await without.upkeep.turn()
        assert await owed(database) == {"a": 1}
        async with database.write() as connection:
            earlier = webhook_rows.c.seen_at - upkeep.FORGOTTEN_AFTER - 1_000
            await connection.execute(update(webhook_rows).values(seen_at=earlier))
        await asyncio.sleep(0.1)
        await without.upkeep.turn()
    assert await owed(database) == {}
    async with database.read() as connection:
        assert await webhooks.states(connection) == []
        cursors = (await connection.execute(select(change_cursors.c.name))).scalars().all()
    assert list(cursors) == [outbox.LOG]  # the log waits for nobody


async def test_what_waits_for_days_for_a_failing_receiver_is_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "INTERVAL", 0.1)
    with receiving(a=answering(500)) as receiver:
        async with dispatching(database, receiver.setting("/a")) as made:
            await happen(database, 5)
            await until(lambda: state_is_failing(database))
            async with database.write() as connection:
                earlier = owed_rows.c.recorded_at - schedule.OLDEST - 1_000
                await connection.execute(update(owed_rows).values(recorded_at=earlier))
            await until(lambda: made.outcomes["a", "given_up"] == 5)
            assert (await state(database, "a")).given_up == 5


async def test_removing_old_changes_does_not_matter_to_what_is_owed(database: Database) -> None:
    with receiving(a=answering(500)) as receiver:
        async with dispatching(database, receiver.setting("/a")):
            (begun,) = await happen(database)
            await until(lambda: receiver.at("/a"))
            async with database.write() as connection:
                await connection.execute(text("DELETE FROM changes"))
            receiver.behaviours["/a"] = answering(204)
            async with database.write() as connection:
                await webhooks.enable(connection, "a")
            await until(lambda: owed_is_empty(database))
    assert operations(receiver, "/a") == [begun, begun]


async def test_a_receiver_that_asks_for_a_pause_is_left_alone(database: Database) -> None:
    with receiving(a=answering(429, Retry_After="3600")) as receiver:
        async with dispatching(database, receiver.setting("/a")):
            await happen(database, 20)
            await until(lambda: state_is_failing(database))
            before = len(receiver.at("/a"))
            await asyncio.sleep(2)
            assert len(receiver.at("/a")) <= max(before, sender.AT_ONCE)
            async with database.read() as connection:
                now = webhooks.clock(connection)
                rest = (await connection.execute(select(webhook_rows.c.resumes_at - now))).scalar_one()
            assert 3_500_000 < rest <= 3_600_000


async def test_names_that_lead_to_this_machine_are_refused_unless_that_is_allowed(
    sqlite_database: Database,
) -> None:
    with receiving() as receiver:
        setting = json.loads(receiver.setting("/a"))
        setting["a"].update(url=f"https://localhost:{receiver.port}/a", allow_private=False)
        async with dispatching(sqlite_database, json.dumps(setting)):
            await happen(sqlite_database)
            await until(lambda: state_is_failing(sqlite_database))
            assert "is not a public address" in ((await state(sqlite_database, "a")).failure or "")
    assert receiver.received == []


async def test_what_is_committed_after_a_failover_that_lost_transactions_comes_too(
    database: Database,
) -> None:
    with receiving() as receiver:
        async with dispatching(database, receiver.setting("/a")):
            await happen(database)
            await until(lambda: receiver.at("/a"))
            await until(lambda: owed_is_empty(database))
            async with database.write() as connection:
                for statement in (
                    "DELETE FROM changes",
                    "UPDATE change_cursors SET position = 0",
                    "UPDATE webhooks SET position = 0",
                ):
                    await connection.execute(text(statement))
            await asyncio.sleep(1.5)  # a look finds the end of the log behind what was read
            (again,) = await happen(database)
            await until(lambda: len(receiver.at("/a")) == 2)
    assert operations(receiver, "/a")[1] == again
