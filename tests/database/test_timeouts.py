"""Timeouts: which holds, what changes it, and what it does to a device operation."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from statemachine import Kind
from tests.support.databases import read
from tests.support.elapsing import elapse
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    REPORT,
    announcement_body,
    assert_counters_are_a_recount,
    message,
    process,
    report_body,
)
from worker.model import timing
from worker.model.outcomes import Tally
from worker.model.timing import Defaults
from worker.processing.expiry import Expirer, all_of_them, apply_settings, count_over
from worker.store import due
from worker.store.database import Database

ONE, OTHER, THIRD = DEVICES
OPERATION = OPERATIONS[0]
HOUR = 3_600
_numbers = count()


@pytest.fixture(autouse=True)
def _no_settings_of_other_tests() -> Iterator[None]:
    yield
    timing.set_defaults(Defaults())


async def announce(database: Database, devices: list[UUID] | None = None, **fields: Any) -> None:
    """Announce the operation, with these devices."""
    body = announcement_body(OPERATION, devices, **fields)
    await process(database, [[message(body, ANNOUNCEMENT)]])


async def report(database: Database, device: UUID, state: str, **fields: Any) -> Tally:
    """Report a state of a device, by an id of its own."""
    fields = {"report_id": f"report {next(_numbers)}", **fields}
    return await process(database, [[message(report_body(OPERATION, device, state, **fields), REPORT)]])


async def act(database: Database) -> Counter[Kind]:
    """Do all that is to be done now; returns how many were timed out, by kind."""
    tally = Tally()
    expirer = Expirer(database, all_of_them, tally.add)
    while await expirer.act():
        pass
    await assert_counters_are_a_recount(database)
    return tally.timeouts


async def states(database: Database) -> dict[UUID, str]:
    """The state of each device of the operation."""
    devices = (await read(database)).operations[OPERATION].devices
    return {id_: device.state for id_, device in devices.items()}


async def given(database: Database, **timeouts: dict[str, float]) -> None:
    """Have a worker start with these timeouts in its settings, by type; `others` stands for `*`."""
    named = {("*" if name == "others" else name): value for name, value in timeouts.items()}
    timing.set_defaults(Defaults.model_validate({"timeouts": named}))
    await apply_settings(database)


async def test_pending_holds_until_a_device_is_dispatched(database: Database) -> None:
    await announce(database, [ONE, OTHER, THIRD], timeouts={"pending": 60})
    await report(database, OTHER, "INITIATED")
    await report(database, THIRD, "DISPATCHED")
    await elapse(database, 59)
    assert not await act(database)

    await elapse(database, 2)

    assert await act(database) == {Kind.PENDING: 2}
    assert await states(database) == {ONE: "TIMEOUT", OTHER: "TIMEOUT", THIRD: "DISPATCHED"}
    await elapse(database, 100 * HOUR)
    assert not await act(database)


async def test_in_progress_is_counted_from_the_dispatch_whatever_is_reported_after(database: Database) -> None:
    await announce(database, [ONE, OTHER], timeouts={"in_progress": 60})
    await elapse(database, HOUR)
    await report(database, ONE, "DISPATCHED")
    await elapse(database, 40)
    await report(database, ONE, "PROCESSING")
    await elapse(database, 19)
    assert not await act(database)

    await elapse(database, 2)

    assert await act(database) == {Kind.IN_PROGRESS: 1}
    assert await states(database) == {ONE: "TIMEOUT", OTHER: "CREATED"}


async def test_every_accepted_report_begins_a_step_anew_also_a_repeated_or_late_one(database: Database) -> None:
    await announce(database, [ONE, OTHER], timeouts={"step": 60})
    await report(database, ONE, "PROCESSING")
    for state in ("PROCESSING", "DISPATCHED", "PROCESSING"):
        await elapse(database, 50)
        await report(database, ONE, state)
        assert not await act(database)

    await elapse(database, 61)

    assert await act(database) == {Kind.STEP: 1}
    assert await states(database) == {ONE: "TIMEOUT", OTHER: "CREATED"}, "a step begins with the dispatch"


async def test_a_duplicate_begins_no_step(database: Database) -> None:
    await announce(database, [ONE], timeouts={"step": 60})
    await report(database, ONE, "PROCESSING", report_id="the same")
    await elapse(database, 50)
    await report(database, ONE, "PROCESSING", report_id="the same")
    await elapse(database, 11)
    assert await act(database) == {Kind.STEP: 1}


async def test_a_step_that_is_announced_later_begins_with_the_last_report_of_before(database: Database) -> None:
    await announce(database, [ONE])
    await report(database, ONE, "PROCESSING", report_id="first")
    await elapse(database, 100)
    await report(database, ONE, "PROCESSING")  # it changes no state
    await elapse(database, 10)
    await announce(database, timeouts={"step": 60})
    assert not await act(database)

    await report(database, ONE, "PROCESSING", report_id="first")  # nor does a duplicate

    assert not await act(database)
    await elapse(database, 51)
    assert await act(database) == {Kind.STEP: 1}


async def test_a_step_begins_with_the_last_report_whatever_the_clock_of_the_worker_said(
    database: Database,
) -> None:
    await announce(database, [ONE])
    await report(database, ONE, "PROCESSING")
    async with database.write() as connection:
        await connection.execute(text("UPDATE device_operation_activity SET recorded_at = recorded_at + 3600"))
    await announce(database, timeouts={"step": 60})
    assert not await act(database)

    await elapse(database, 61)

    assert await act(database) == {Kind.STEP: 1}


async def test_the_earliest_timeout_holds(database: Database) -> None:
    await announce(database, [ONE, OTHER], timeouts={"pending": 100, "in_progress": 10, "step": 50, "total": 60})
    await report(database, OTHER, "PROCESSING")
    await elapse(database, 11)
    assert await act(database) == {Kind.IN_PROGRESS: 1}
    await elapse(database, 50)
    assert await act(database) == {Kind.TOTAL: 1}


async def test_a_deadline_ends_everything_that_is_not_settled(database: Database) -> None:
    await announce(database, DEVICES, deadline=_in(60))
    await report(database, ONE, "SUCCESS")
    await report(database, OTHER, "PROCESSING")
    await elapse(database, 61)
    assert await act(database) == {Kind.DEADLINE: 2}
    assert await states(database) == {ONE: "SUCCESS", OTHER: "TIMEOUT", THIRD: "TIMEOUT"}


@pytest.mark.parametrize(
    "deadline",
    ["2026-01-31T08:00:00Z", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z"],
)
async def test_a_deadline_in_the_past_ends_it_at_once(database: Database, deadline: str) -> None:
    await announce(database, [ONE], deadline=deadline)
    over = await count_over(database)
    assert over == {OPERATION: {Kind.DEADLINE: 1}}
    assert await act(database) == {Kind.DEADLINE: 1}
    assert await states(database) == {ONE: "TIMEOUT"}


async def test_a_deadline_at_the_end_of_the_calendar_is_never_reached(database: Database) -> None:
    await announce(database, [ONE], deadline="9999-12-31T23:59:59.999999Z")
    assert not await act(database)
    await announce(database, deadline=_in(-1))
    assert await act(database) == {Kind.DEADLINE: 1}


async def test_the_end_of_a_schedule_is_a_deadline_only_where_the_setting_says_so(database: Database) -> None:
    await announce(database, [ONE], schedule_type="WINDOW", schedule_args={"end_datetime": _in(60)})
    await elapse(database, 61)
    assert not await act(database)

    timing.set_defaults(Defaults(schedule_ends=True))
    await apply_settings(database)

    assert await act(database) == {Kind.DEADLINE: 1}


async def test_a_schedule_without_a_readable_end_has_none(database: Database) -> None:
    timing.set_defaults(Defaults(schedule_ends=True))
    ends: list[object] = [None, "soon", 5, [], "2026-01-31"]
    for end in ends:
        await announce(database, [ONE], schedule_type="WINDOW", schedule_args={"end_datetime": end})
    await elapse(database, 100 * HOUR)
    assert not await act(database)


async def test_a_setting_holds_for_its_type_and_that_for_all_for_the_others(database: Database) -> None:
    await given(database, CONVERGE={"pending": 60}, others={"pending": 600})
    await announce(database, [ONE])
    other = message({**announcement_body(OPERATIONS[1], [ONE]), "operation_type": "REBOOT"}, ANNOUNCEMENT)
    await process(database, [[other]])

    await elapse(database, 61)
    assert await act(database) == {Kind.PENDING: 1}
    assert await states(database) == {ONE: "TIMEOUT"}
    await elapse(database, 540)
    assert await act(database) == {Kind.PENDING: 1}


async def test_a_type_that_becomes_known_later_brings_its_timeouts(database: Database) -> None:
    await given(database, CONVERGE={"pending": 60})
    await report(database, ONE, "CREATED")  # of no type
    await elapse(database, 61)
    assert not await act(database)

    await report(database, OTHER, "CREATED", operation_type="CONVERGE")

    assert await act(database) == {Kind.PENDING: 1}
    assert await states(database) == {ONE: "TIMEOUT", OTHER: "CREATED"}


async def test_changed_settings_hold_for_all_that_is_open(database: Database) -> None:
    await announce(database, [ONE, OTHER])
    await report(database, ONE, "PROCESSING")
    await elapse(database, HOUR)
    assert not await act(database)

    await given(database, others={"total": 2 * HOUR})
    await act(database)
    await given(database, others={"total": 60})
    assert await act(database) == {Kind.TOTAL: 2}

    await given(database)
    await announce(database, [THIRD])
    await elapse(database, 100 * HOUR)
    assert not await act(database)
    assert (await states(database))[THIRD] == "CREATED"


async def test_settings_that_are_taken_away_hold_no_longer(database: Database) -> None:
    await given(database, others={"total": 60})
    await announce(database, [ONE])
    await given(database)
    await elapse(database, 61)
    assert not await act(database)


async def test_what_an_announcement_names_holds_whatever_the_settings_are(database: Database) -> None:
    await given(database, others={"total": 60})
    await announce(database, [ONE], timeouts={"total": 600})
    await given(database, others={"total": 30})
    await elapse(database, 599)
    assert not await act(database)
    await elapse(database, 2)
    assert await act(database) == {Kind.TOTAL: 1}


@pytest.mark.parametrize(("seconds", "expected"), [(600, {}), (30, {Kind.PENDING: 1})])
async def test_announcing_again_changes_the_timeouts_of_what_is_not_settled(
    database: Database, seconds: int, expected: dict[Kind, int]
) -> None:
    await announce(database, [ONE, OTHER], timeouts={"pending": 60})
    await report(database, OTHER, "SUCCESS")
    await elapse(database, 31)

    await announce(database, timeouts={"pending": seconds})

    assert await act(database) == expected
    await elapse(database, 600)
    await act(database)
    assert await states(database) == {ONE: "TIMEOUT", OTHER: "SUCCESS"}


async def test_announcing_again_replaces_timeouts_as_a_whole_and_keeps_what_it_does_not_name(
    database: Database,
) -> None:
    await announce(database, [ONE, OTHER], timeouts={"pending": 60, "total": 600}, deadline=_in(6_000))
    await announce(database)
    await elapse(database, 61)
    assert await act(database) == {Kind.PENDING: 2}, "what the second one does not name stays"
    await announce(database, [THIRD], timeouts={"total": 30_000})
    await elapse(database, 3_000)
    assert not await act(database), "pending was replaced with total"
    await elapse(database, 3_000)
    assert await act(database) == {Kind.DEADLINE: 1}, "the deadline stays"


async def test_no_timeouts_at_all_are_announced_as_an_empty_object(database: Database) -> None:
    await announce(database, [ONE], timeouts={"pending": 60})
    await announce(database, timeouts={})
    await elapse(database, 61)
    assert not await act(database)


async def test_a_step_that_is_announced_while_a_timeout_is_taken_begins_with_the_last_report(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which only arming the row anew finds: it has changed no state, and there was no step when it came."""
    database = postgresql_database
    await announce(database, [ONE], timeouts={"total": HOUR})
    await report(database, ONE, "PROCESSING")
    await elapse(database, 2 * HOUR)
    await report(database, ONE, "PROCESSING")
    take_due = due.take_due

    async def take_due_late(*arguments: Any) -> Any:
        monkeypatch.setattr(due, "take_due", take_due)
        found = await take_due(*arguments)
        await announce(database, timeouts={"total": 10 * HOUR, "step": HOUR})
        return found

    monkeypatch.setattr(due, "take_due", take_due_late)

    assert not await act(database)
    await elapse(database, HOUR + 1)
    assert await act(database) == {Kind.STEP: 1}


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "CANCELLED", "COMPLETED"])
async def test_what_is_reported_after_a_timeout_wins(database: Database, state: str) -> None:
    await announce(database, [ONE, OTHER], timeouts={"total": 60})
    await elapse(database, 61)
    await act(database)

    await report(database, ONE, state)
    late = await report(database, OTHER, "PROCESSING")

    assert await states(database) == {ONE: state, OTHER: "TIMEOUT"}
    assert late.verdicts == {"late": 1}
    await assert_counters_are_a_recount(database)


async def test_a_timeout_is_an_ordinary_report_with_its_kind_and_a_reason_in_words(database: Database) -> None:
    await announce(database, [ONE], timeouts={"pending": 60})
    await elapse(database, 61)
    await act(database)
    async with database.read() as connection:
        [row] = await connection.execute(
            text("SELECT service_id, code, reason FROM device_operation_activity WHERE state = 80")
        )
        [of_row] = await connection.execute(text("SELECT code, reason FROM device_operations"))
    assert tuple(row) == ("deviceops", "pending", "timed out: not dispatched within 1 min of its registration")
    assert tuple(of_row) == tuple(row)[1:]


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
