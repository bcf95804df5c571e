"""Retention removes what is past its time, and nothing that anybody still waits for."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from tests.databases import read
from tests.letters import ALL, conflict, rows
from tests.sending import DEVICES, OPERATIONS, message, process, report_body
from worker.mending.closing import discard, restore
from worker.mending.retention import Retention
from worker.messages import Message
from worker.outcomes import Action, Reason, Status
from worker.store import letters
from worker.store.database import Database
from worker.store.letters import Selection
from worker.store.tables import dead_letters

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
EVERYTHING = Retention(*[timedelta(seconds=-1)] * 3)
"""Whatever may go goes, however young."""
DISCARDED = Selection(status=Status.DISCARDED)


def report(state: str, device: int = 0, **more: object) -> Message:
    return message(report_body(OPERATION, DEVICES[device], state, **more))


async def count(database: Database, table: str) -> Any:
    async with database.read() as connection:
        return (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()  # noqa: S608


@pytest.fixture
async def stored(database: Database) -> Database:
    """A settled device operation, one that is not, a parked report and a conflict."""
    await process(database, [[report("CREATED"), report("FAILURE"), report("SUCCESS"), report("CREATED", 1)]])
    await process(database, [[report("SUCCESS", 2)]])
    return database


async def test_what_is_open_stays_and_so_does_the_history_of_what_is_not_settled(stored: Database) -> None:
    before = await read(stored)

    pruned = await EVERYTHING.prune(stored)

    after = await read(stored)
    assert pruned == {"dead_letters": 0, "bodies": 0, "activity": 2}
    assert after.dead_letters == before.dead_letters
    assert {id_: found.counters for id_, found in after.operations.items()} == {
        id_: found.counters for id_, found in before.operations.items()
    }
    assert await count(stored, "device_operation_activity") == 1


async def test_what_is_young_stays(stored: Database) -> None:
    await discard(stored, Selection(), "not now", actor="me")
    day = timedelta(days=1)

    assert await Retention(day, day).prune(stored) == {"dead_letters": 0, "bodies": 0, "activity": 0}


async def test_closed_dead_letters_go_with_their_histories(stored: Database) -> None:
    await discard(stored, Selection(reason=Reason.CONFLICT), "it is right", actor="me")

    assert (await EVERYTHING.prune(stored))["dead_letters"] == 1

    assert await count(stored, "dead_letters") == 1
    assert await count(stored, "dead_letter_history") == 0


async def test_reports_that_come_again_after_their_history_is_gone_change_nothing(stored: Database) -> None:
    await process(stored, [[report("PROCESSING")]])  # late, and shows the dispatch
    before = await read(stored)
    await EVERYTHING.prune(stored)

    await process(stored, [[report("PROCESSING"), report("FAILURE"), report("CREATED"), report("SUCCESS")]])

    after = await read(stored)
    assert after.operations[OPERATION].counters == before.operations[OPERATION].counters
    assert after.dead_letters == before.dead_letters


async def test_a_parked_report_is_taken_up_however_much_was_pruned(stored: Database) -> None:
    await EVERYTHING.prune(stored)

    await process(stored, [[report("CREATED", 2)]])

    assert (await read(stored)).operations[OPERATION].devices[DEVICES[2]].state == "SUCCESS"


async def test_what_has_no_body_any_more_is_not_restored_also_not_by_who_read_it_before(stored: Database) -> None:
    await discard(stored, Selection(), "not now", actor="me")
    async with stored.read() as connection:
        with_bodies = (await connection.execute(select(dead_letters))).all()
    assert (await Retention(bodies=timedelta(seconds=-1)).prune(stored))["bodies"] == 2

    assert await restore(stored, DISCARDED, actor="me") == 0
    async with stored.write() as connection:
        await letters.mark(connection, with_bodies, Status.OPEN, Action.RESTORED, "", "me", datetime.now(UTC))

    assert not (await read(stored)).dead_letters


async def test_a_report_whose_dead_letter_was_emptied_is_a_dead_letter_again_when_it_comes_again(
    database: Database,
) -> None:
    _, body = await conflict(database, report_id="one")
    await discard(database, ALL, "a test", actor="me")
    await Retention(bodies=timedelta(seconds=-1)).prune(database)

    tally = await process(database, [[message(body)]])

    assert (tally.dead_lettered, tally.duplicate) == ({"conflict": 1}, 0)
    assert [row.report_id for row in await rows(database)] == ["one"]
