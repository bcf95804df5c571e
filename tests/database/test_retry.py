"""A retry is one operation, created in one transaction: for the device operations that its filter finds."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from statemachine import State
from tests.support.databases import read
from tests.support.sending import (
    ANNOUNCEMENT,
    OPERATIONS,
    announcement_body,
    assert_counters_are_a_recount,
    assert_everything_is_accounted_for,
    message,
    process,
    report_body,
)
from worker.config.reporters import Reporters, Service
from worker.model import changes
from worker.model.causes import cause_of_reason
from worker.model.changes import Told
from worker.model.messages import Origin
from worker.model.outcomes import Tally
from worker.processing import backlog
from worker.processing import retry as retrying
from worker.processing.retry import Obstacle, Refused, Retried, Retry, retry_operation
from worker.processing.together import Together
from worker.store import change_log, queries
from worker.store.change_page import number_all
from worker.store.database import Database
from worker.store.recount import find_drift
from worker.store.tables import activity, announcements, device_operations, operation_tasks, operations

OPERATION, NEW = OPERATIONS
DEVICES = [UUID(int=0xD0 + number) for number in range(8)]
STATES = ("FAILURE", "FAILURE", "TIMEOUT", "CANCELLED", "SUCCESS", "PROCESSING", "CREATED", "FAILURE")
"""Of the devices, in their order."""
FAILED = {device for device, state in zip(DEVICES, STATES, strict=True) if state in ("FAILURE", "TIMEOUT")}


@pytest.fixture
async def failed(database: Database) -> Database:
    """A database with an operation of which some device operations have failed."""
    await begin(database)
    return database


async def begin(database: Database, **announced: object) -> None:
    reports = [
        message(report_body(OPERATION, device, state))
        for device, state in zip(DEVICES, STATES, strict=True)
        if state != "CREATED"
    ]
    await process(database, [[message(announcement_body(OPERATION, DEVICES, **announced), ANNOUNCEMENT)], reports])


async def retried(database: Database, new: UUID = NEW, **filters: Any) -> Retried | Refused:
    return await retry_operation(database, Retry(OPERATION, new, **filters), Origin())


async def devices_of(database: Database, operation: UUID) -> set[UUID]:
    found = (await read(database)).operations.get(operation)
    return set() if found is None else set(found.devices)


async def row_of(database: Database, operation: UUID) -> Any:
    async with database.read() as connection:
        return (await connection.execute(select(operations).where(operations.c.id == operation))).one()


async def told(database: Database, operation: UUID) -> list[Any]:
    """The bodies of an operation's changes."""
    await number_all(database)
    async with database.read() as connection:
        found = await change_log.read_after(connection, 0, 10_000)
    bodies = [json.loads(each.payload) for each in found]
    return [body for body in bodies if "sequence" in body and body["operation_id"] == str(operation)]


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        (retrying.FAILED, FAILED),
        ({State.TIMEOUT}, {DEVICES[2]}),
        ({State.CANCELLED, State.TIMEOUT}, {DEVICES[2], DEVICES[3]}),
    ],
)
async def test_it_is_for_those_in_the_states_that_are_named(
    failed: Database, states: Iterable[State], wanted: set[UUID]
) -> None:
    assert await retried(failed, states=frozenset(states)) == Retried(is_new=True)

    assert await devices_of(failed, NEW) == wanted
    row = await row_of(failed, NEW)
    assert row.operation_device_query == {
        "retry_of": str(OPERATION),
        "state": [state.name for state in sorted(states)],
    }
    assert (row.operation_type, row.state, row.expected_device_count) == ("CONVERGE", "RESOLVED", len(wanted))
    await assert_counters_are_a_recount(failed)
    assert (await find_drift(failed))[1] == []


async def test_filters_hold_together(failed: Database) -> None:
    column = device_operations.c

    async def set_columns(device: UUID, **values: str) -> None:
        async with failed.write() as connection:
            where = (column.device_id == device) & (column.operation_id == OPERATION)
            await connection.execute(update(device_operations).where(where).values(**values))

    await set_columns(DEVICES[0], service_id="a", code="DISK", cause="DISK")
    await set_columns(DEVICES[1], service_id="b", code="DISK", cause="DISK")
    await set_columns(DEVICES[2], service_id="a", cause=cause_of_reason("no answer in 7 s"))
    cases: Sequence[tuple[dict[str, Any], set[UUID]]] = [
        ({"code": "DISK"}, {DEVICES[0], DEVICES[1]}),
        ({"service_id": "a"}, {DEVICES[0], DEVICES[2]}),
        ({"code": "DISK", "service_id": "a"}, {DEVICES[0]}),
        ({"reason": "no answer in 9 s"}, {DEVICES[2]}),
    ]
    for filters, wanted in cases:
        new = uuid4()
        assert await retried(failed, new, **filters) == Retried(is_new=True)
        assert await devices_of(failed, new) == wanted
        query = (await row_of(failed, new)).operation_device_query
        assert query == {"retry_of": str(OPERATION), "state": ["FAILURE", "TIMEOUT"], **filters}
    outcome = await retried(failed, code="DISK", reason="no answer in 9 s")
    detail = f"operation {OPERATION} has no device operation in FAILURE or TIMEOUT with code 'DISK' and reason 'no"
    assert isinstance(outcome, Refused)
    assert (outcome.obstacle, outcome.detail.startswith(detail)) == (Obstacle.NOTHING, True)


async def test_twice_is_once(failed: Database) -> None:
    assert await retried(failed) == Retried(is_new=True)
    await process(failed, [[message(report_body(NEW, DEVICES[0], "SUCCESS"))]])
    before, changes_before = await read(failed), len(await told(failed, NEW))

    assert await retried(failed) == Retried(is_new=False)

    assert await read(failed) == before
    assert len(await told(failed, NEW)) == changes_before


async def test_at_the_same_time_is_once(failed: Database) -> None:
    outcomes = await asyncio.gather(*(retried(failed) for _ in range(4)))

    assert sorted(outcome.is_new for outcome in outcomes if isinstance(outcome, Retried)) == [False] * 3 + [True]
    assert await devices_of(failed, NEW) == FAILED
    assert [body["sequence"] for body in await told(failed, NEW)] == [1]


async def test_what_cannot_be_retried_changes_nothing(failed: Database) -> None:
    other = uuid4()
    await process(failed, [[message(announcement_body(other, DEVICES), ANNOUNCEMENT)]])
    await retried(failed)
    before = await read(failed)
    taken = (
        f"operation {NEW} exists, and is not the retry of operation {OPERATION} for device operations in TIMEOUT"
    )
    unknown = Retry(UUID(int=1), uuid4())

    assert await retried(failed, OPERATION) == Refused(Obstacle.SAME, "an operation cannot be the retry of itself")
    assert await retried(failed, states=frozenset({State.TIMEOUT})) == Refused(Obstacle.TAKEN, taken)
    assert _obstacle(await retried(failed, other)) is Obstacle.TAKEN
    assert _obstacle(await retry_operation(failed, Retry(other, uuid4()), Origin())) is Obstacle.NOTHING
    assert await retry_operation(failed, unknown, Origin()) == Refused(
        Obstacle.UNKNOWN, f"operation {UUID(int=1)} is unknown"
    )

    assert await read(failed) == before


def _obstacle(outcome: Retried | Refused) -> Obstacle:
    assert isinstance(outcome, Refused)
    return outcome.obstacle


async def test_the_sender_has_to_be_allowed_to_announce_the_type(failed: Database) -> None:
    services = {"a": Service(operation_types=frozenset({"OTHER"})), "b": Service()}
    reporters = Reporters(services, verify_user_id=True)

    async def sent_by(user: str) -> Retried | Refused:
        origin = Origin(is_http=True, properties={"user_id": user})
        return await retry_operation(failed, Retry(OPERATION, NEW), origin, reporters=reporters)

    assert await sent_by("a") == Refused(Obstacle.DENIED, "'a' may not report on a 'CONVERGE' operation")
    assert await devices_of(failed, NEW) == set()
    assert await sent_by("b") == Retried(is_new=True)


@pytest.mark.parametrize("setting", [Told.OPERATIONS, Told.ALL])
async def test_one_change_tells_it(failed: Database, monkeypatch: pytest.MonkeyPatch, setting: Told) -> None:
    monkeypatch.setattr(changes, "_told", setting)
    monkeypatch.setattr(retrying, "TOGETHER", 2)

    await retried(failed)

    operation, *moved = await told(failed, NEW)
    assert (operation["sequence"], operation["state"], operation["before"]) == (1, "RESOLVED", None)
    assert operation["counters"]["resolved_device_count"] == len(FAILED)
    found = {each["device_id"]: (each["before"], each["state"]) for body in moved for each in body["changes"]}
    wanted = {str(device): (None, "CREATED") for device in FAILED} if setting is Told.ALL else {}
    assert found == wanted
    assert (await row_of(failed, NEW)).sequence == 1


async def test_it_is_as_the_announcement_of_the_same_devices(
    failed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "TOGETHER", 2)
    announced = uuid4()
    await process(failed, [[message(announcement_body(announced, FAILED), ANNOUNCEMENT)]])

    await retried(failed)

    stored = (await read(failed)).operations
    for name in ("operation_type", "expected", "state", "counters", "has_tripped", "states"):
        assert getattr(stored[NEW], name) == getattr(stored[announced], name), name
    documents = []
    for operation in (NEW, announced):
        async with failed.read() as connection:
            found = await queries.get_device_operation(connection, operation, DEVICES[0])
            assert found is not None
            query = select(activity).where(activity.c.device_operation_id == found.id)
            [report] = (await connection.execute(query)).all()
            row = await connection.execute(select(device_operations).where(device_operations.c.id == found.id))
        assert [each.device_operation_state for each in found.device_operation_activity] == ["CREATED"]
        times = ("id", "operation_id", "created_at", "updated_at", "reached", "registered_at", "reported_at")
        ours = ("device_operation_id", "report_id", "created_at", "recorded_at")
        columns = {name: value for name, value in row.one()._mapping.items() if name not in times}
        documents.append((columns, {name: value for name, value in report._mapping.items() if name not in ours}))
    assert documents[0] == documents[1]


async def test_what_was_announced_holds_again_but_for_moments_that_have_passed(database: Database) -> None:
    window = {"start_datetime": "2026-01-01T00:00:00Z", "end_datetime": "2026-01-02T00:00:00Z"}
    tomorrow = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    abort = {"failed_percent": 50, "min_settled": 100, "action": "notify"}
    await begin(
        database,
        arguments={"speed": 3},
        timeouts={"pending": 600, "total": 0.5 * 86_400},
        deadline=tomorrow.isoformat(),
        abort=abort,
        schedule_type="WINDOW",
        schedule_args=window,
        reason="the night's",
    )

    await retried(database)

    first, new = await row_of(database, OPERATION), await row_of(database, NEW)
    for name in ("arguments", "timeouts", "deadline", "abort"):
        assert getattr(new, name) == getattr(first, name) != None, name  # noqa: E711
    assert (new.schedule_type, new.schedule_args, new.schedule_end, new.reason) == (None, None, None, None)
    async with database.read() as connection:
        column = device_operations.c
        due = select(column.expires_at - column.registered_at).where(column.operation_id == NEW).distinct()
        assert (await connection.execute(due)).scalars().all() == [600_000]
        assert (await connection.execute(select(func.count()).select_from(operation_tasks))).scalar_one() == 0


async def test_a_window_that_is_not_over_and_no_past_deadline_is_announced_again(database: Database) -> None:
    window = {"end_datetime": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    await begin(database, deadline="2026-01-01T00:00:00Z", schedule_type="WINDOW", schedule_args=window)

    await retried(database)

    first, new = await row_of(database, OPERATION), await row_of(database, NEW)
    assert (new.schedule_type, new.schedule_args) == ("WINDOW", window)
    assert new.schedule_end == first.schedule_end
    assert new.deadline is None


async def test_parked_reports_are_released_in_the_same_transaction(
    failed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_told", Told.ALL)
    monkeypatch.setattr(backlog, "MAX_REPORTS", 2)
    monkeypatch.setattr(retrying, "TOGETHER", 2)
    early = sorted(FAILED)[:3]
    reports = [
        message(report_body(NEW, device, state), message_id=f"{device} {state}")
        for device in [*early, DEVICES[4]]  # the last one is not among the retried
        for state in ("PROCESSING", "FAILURE")
    ]
    await process(failed, [reports])
    tally = Tally()

    assert await retry_operation(failed, Retry(OPERATION, NEW), Origin(), note=tally.add) == Retried(is_new=True)

    stored = await read(failed)
    assert stored.operations[NEW].counters["failed_device_count"] == len(early)
    assert {reason for reason, _, _ in stored.dead_letters.elements()} == {"unknown_device_operation"}
    assert {device for _, _, device in stored.dead_letters} == {DEVICES[4]}
    await assert_counters_are_a_recount(failed)
    assert_everything_is_accounted_for(tally)
    assert (tally.announced, tally.released) == (1, 6)
    operation, moved = await told(failed, NEW)
    assert (operation["sequence"], operation["state"]) == (1, "DISPATCHING")
    found = {UUID(each["device_id"]): (each["before"], each["state"]) for each in moved["changes"]}
    assert found == {device: (None, "FAILURE" if device in early else "CREATED") for device in FAILED}


async def test_nothing_is_left_of_one_that_fails_at_its_end(
    failed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await read(failed)
    monkeypatch.setattr(Together, "finish", _fail)
    with pytest.raises(RuntimeError):
        await retried(failed)

    assert await read(failed) == before
    monkeypatch.undo()
    assert await retried(failed) == Retried(is_new=True)
    async with failed.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(announcements))).scalar_one() == 0


async def _fail(_: object) -> Tally:
    raise RuntimeError


async def test_reports_that_come_meanwhile_wait_and_are_applied(
    failed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, is_registered = Together.finish, asyncio.Event()

    async def finish_later(together: Together) -> Tally:
        is_registered.set()
        await asyncio.sleep(0.2)
        return await finish(together)

    monkeypatch.setattr(Together, "finish", finish_later)
    retrying_now = asyncio.create_task(retried(failed))
    await is_registered.wait()
    reports = [
        [message(report_body(NEW, device, state), message_id=f"{device} {state}") for device in FAILED]
        for state in ("SUCCESS", "CREATED")
    ]
    await asyncio.gather(*(process(failed, [each]) for each in reports))

    assert await retrying_now == Retried(is_new=True)
    stored = await read(failed)
    assert stored.operations[NEW].counters["success_device_count"] == len(FAILED)
    assert not stored.dead_letters
    await assert_counters_are_a_recount(failed)


async def test_a_key_that_came_before_is_answered_with_its_operation(failed: Database) -> None:
    assert await retried(failed, key="a") == Retried(is_new=True)
    await process(failed, [[message(announcement_body(NEW, operation_device_query={}), ANNOUNCEMENT)]])
    before = await read(failed)

    assert await retried(failed, key="a") == Retried(is_new=False)
    assert _obstacle(await retried(failed, key="b")) is Obstacle.TAKEN

    assert await read(failed) == before
