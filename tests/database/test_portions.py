"""What registers much, or has much waiting for it, is taken in portions, and ends as if taken at once."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from sqlalchemy import select, text

from statemachine import Verdict
from tests.support.agreement import check_group
from tests.support.databases import Stored, clear, read
from tests.support.poison import POISON, refuse_poison
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    Batches,
    announcement_body,
    assert_counters_are_a_recount,
    assert_everything_is_accounted_for,
    message,
    process,
    report_body,
)
from tests.support.strategies import Fleet, arrangements
from worker.model.messages import Message
from worker.model.outcomes import Reason, Tally
from worker.model.parsing import parse
from worker.processing import backlog, batch_keys, splitting, write_probe
from worker.processing.backlog_sweeper import sweep
from worker.processing.direct import process_message
from worker.processing.splitting import WriteTransactions, process_items
from worker.store.database import Database
from worker.store.tables import announcements, operation_activity

OPERATION = OPERATIONS[0]
MANY = [UUID(int=n) for n in range(1, 6)]
WAY = ("INITIATED", "DISPATCHED", "SUCCESS")

Result = TypeVar("Result")


class Died(BaseException):
    """What a process that is killed does not see."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make portions so small that a handful of reports takes several."""
    usual, probe = batch_keys.MAX_DEVICES, write_probe.probe_write

    async def of_usual_size(database: Database) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(batch_keys, "MAX_DEVICES", usual)
            await probe(database)

    monkeypatch.setattr(write_probe, "probe_write", of_usual_size)  # which is one transaction
    monkeypatch.setattr(backlog, "MAX_REPORTS", 2)
    monkeypatch.setattr(batch_keys, "MAX_DEVICES", 2)
    monkeypatch.setattr(splitting, "DEVICES", 2)
    monkeypatch.setattr(splitting, "LISTED", 3)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, small: None) -> None:  # noqa: ARG001
    """Make them smaller still."""
    monkeypatch.setattr(backlog, "MAX_REPORTS", 1)
    monkeypatch.setattr(batch_keys, "MAX_DEVICES", 1)


def dying(database: Database, commits: int) -> WriteTransactions:
    """Transactions of a process that is killed after so many commits."""
    done = 0

    async def run(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        nonlocal done
        if done == commits:
            raise Died
        result = await work()
        done += isinstance(result, Tally)
        return result

    return WriteTransactions(database, run=run)


async def settled(transactions: WriteTransactions, one: Message) -> Tally:
    return await process_items(transactions, parse(one))


def announced(*devices: UUID, message_id: str | None = "older", **more: object) -> Message:
    return message(announcement_body(OPERATION, devices, **more), ANNOUNCEMENT, message_id)


async def park(database: Database) -> None:
    """Have reports of all devices wait, and of the first one more than a portion has."""
    reports = [message(report_body(OPERATION, device, state)) for state in WAY for device in MANY]
    reports += [message(report_body(OPERATION, MANY[0], "PROCESSING", nonce=n)) for n in range(4)]
    await process(database, [reports])


def assert_all_succeeded(stored: Stored) -> None:
    operation = stored.operations[OPERATION]
    assert {(device.state, device.dispatched) for device in operation.devices.values()} == {("SUCCESS", True)}
    assert operation.devices.keys() == set(MANY)
    assert sum(sum(device.history.values()) for device in operation.devices.values()) >= len(MANY) * (len(WAY) + 1)
    assert stored.dead_letters.total() == 0


@pytest.mark.usefixtures("tiny")
@given(arrangement=arrangements())
@settings(max_examples=50)
async def test_any_order_any_batches_and_any_repetition_end_in_the_same_also_in_portions(
    database: Database, arrangement: tuple[Batches, Fleet]
) -> None:
    batches, fleet = arrangement
    await clear(database)

    tally = await process(database, batches)

    fleet.assert_is(await read(database))
    assert_everything_is_accounted_for(tally)


@pytest.mark.usefixtures("small")
async def test_the_product_agrees_with_the_model_also_in_portions(database: Database) -> None:
    await check_group(database, 1, in_portions=True)


@pytest.mark.usefixtures("small")
async def test_whoever_takes_portions_and_is_killed_after_any_of_them_goes_on_with_the_same_message(
    database: Database,
) -> None:
    commits, is_killed = 0, True
    while is_killed:
        await clear(database)
        await park(database)
        try:
            await settled(dying(database, commits), announced(*MANY))
            is_killed = False
        except Died:
            commits += 1
        first = await read(database)
        if commits > 1:
            assert first.operations[OPERATION].expected == len(MANY)

        again = await settled(WriteTransactions(database), announced(*MANY))

        assert again.announced == 1
        assert_all_succeeded(await read(database))
        await assert_counters_are_a_recount(database)
        assert await keys(database) == ["older"]
        states = await states_of_operation(database)
        assert states.count("COMPLETED") == 1, states
        assert (await settled(WriteTransactions(database), announced(*MANY, UUID(int=99)))).announced == 1
        assert_all_succeeded(await read(database))  # it came before, so it has no effect
    assert commits > 8


@pytest.mark.usefixtures("small")
async def test_a_newer_announcement_between_two_portions_is_not_undone_by_the_older_one(
    database: Database,
) -> None:
    for commits in range(1, 8):
        await clear(database)
        await park(database)
        with pytest.raises(Died):
            await settled(dying(database, commits), announced(*MANY, reason="older"))

        newer = announced(MANY[0], message_id="newer", reason="newer", device_count=4, operation_type="REBOOT")
        await settled(WriteTransactions(database), newer)
        await settled(WriteTransactions(database), announced(*MANY, reason="older"))

        assert_all_succeeded(await read(database))
        operation = (await read(database)).operations[OPERATION]
        assert (operation.operation_type, operation.expected) == ("REBOOT", 4)
        async with database.read() as connection:
            assert (await connection.execute(text("SELECT reason FROM operations"))).scalar_one() == "newer"
        assert await keys(database) == ["newer", "older"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("comes_again", [True, False])
async def test_what_waits_for_one_device_is_released_to_the_end_though_the_registration_was_killed(
    database: Database, comes_again: bool
) -> None:
    registration = message(report_body(OPERATION, MANY[0], "CREATED"))
    for commits in range(5):
        await clear(database)
        await park(database)
        with pytest.raises(Died):
            await settled(dying(database, commits), registration)

        if comes_again or commits == 0:
            await settled(WriteTransactions(database), registration)
        else:
            await sweep(database, None)

        stored = await read(database)
        assert stored.operations[OPERATION].devices[MANY[0]].state == "SUCCESS"
        assert stored.dead_letters.total() == (len(MANY) - 1) * len(WAY)
        await assert_counters_are_a_recount(database)


@pytest.mark.usefixtures("small")
async def test_what_is_not_registered_stays_parked_when_somebody_looks_for_what_was_left(
    database: Database,
) -> None:
    await park(database)
    before = await read(database)

    await sweep(database, None)

    assert await read(database) == before


@pytest.mark.usefixtures("small")
async def test_two_who_take_the_same_portions_at_once_release_everything_once(database: Database) -> None:
    await park(database)

    tallies = await asyncio.gather(
        *(
            settled(WriteTransactions(database), announced(*MANY, message_id=id_))
            for id_ in ("older", "older", "other")
        ),
        settled(WriteTransactions(database), message(report_body(OPERATION, MANY[0], "CREATED"))),
    )

    assert sum(tally.released for tally in tallies) == len(MANY) * len(WAY) + 4
    assert sum(tally.verdicts[Verdict.APPLIED] for tally in tallies) >= len(MANY)
    assert_all_succeeded(await read(database))
    await assert_counters_are_a_recount(database)
    assert await keys(database) == ["older", "other"]


@pytest.mark.usefixtures("small")
async def test_who_waits_for_the_answer_gets_it_when_everything_is_released(database: Database) -> None:
    await park(database)

    assert (await process_message(database, announced(*MANY))).outcome == "announced"
    assert_all_succeeded(await read(database))
    assert (await process_message(database, announced(*MANY))).outcome == "duplicate"


@pytest.mark.usefixtures("small")
async def test_an_operation_is_not_over_before_all_of_its_devices_are_whatever_their_number_is_said_to_be(
    database: Database,
) -> None:
    """Each device is registered before the first one is settled, and settled before the next one is begun."""
    await park(database)

    await settled(WriteTransactions(database), announced(*MANY, device_count=1))

    assert await states_of_operation(database) == ["RESOLVED", "DISPATCHING", "COMPLETED"]


@pytest.mark.parametrize("portions_are", ["small", "large"])
async def test_a_parked_report_that_the_database_refuses_costs_nothing_but_itself(
    database: Database, portions_are: str, request: pytest.FixtureRequest
) -> None:
    if portions_are == "small":
        request.getfixturevalue("small")
    await park(database)
    poison = {**report_body(OPERATION, MANY[1], "PROCESSING"), "service_id": POISON}
    await process(database, [[message(poison)]])
    await refuse_poison(database)

    tally = await process(database, [[announced(*MANY)]])

    assert (tally.announced, tally.released) == (1, len(MANY) * len(WAY) + 5)
    stored = await read(database)
    assert stored.dead_letters == {(Reason.MALFORMED, OPERATION, MANY[1]): 1}
    assert stored.operations[OPERATION].counters["success_device_count"] == len(MANY)
    async with database.read() as connection:
        query = text("SELECT detail FROM dead_letters WHERE status = 'open'")
        [detail] = (await connection.execute(query)).scalars()
    assert detail.startswith("the database refuses it: ")


async def test_large_parked_reports_are_released_few_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_BYTES", 10_000)
    sizes: list[int] = []
    read_waiting = backlog.read

    async def noted(connection: Any, ids: Any) -> Any:
        letters = await read_waiting(connection, ids)
        sizes.append(sum(len(letter.message.body) for letter in letters))
        return letters

    monkeypatch.setattr("worker.processing.loading.read", noted)
    large = [message(report_body(OPERATION, device, "SUCCESS", nonce="x" * 3_000)) for device in DEVICES * 3]
    large += [message(report_body(OPERATION, DEVICES[0], "INITIATED", nonce="x" * 20_000))]
    await process(database, [large])

    await process(database, [[announced(*DEVICES)]])

    assert (await read(database)).dead_letters.total() == 0
    assert sorted(sizes, reverse=True)[1] <= 10_000 < max(sizes) < 21_000


async def keys(database: Database) -> list[str]:
    async with database.read() as connection:
        return sorted((await connection.execute(select(announcements.c.message_id))).scalars())


async def states_of_operation(database: Database) -> list[str]:
    async with database.read() as connection:
        query = select(operation_activity.c.state).order_by(operation_activity.c.id)
        return list((await connection.execute(query)).scalars())
