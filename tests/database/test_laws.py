"""The laws, for any messages that Hypothesis finds: order and repetition do not matter, counters are always a
recount. Each holds on SQLite and on PostgreSQL.
"""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from sqlalchemy import text

from tests.support.databases import clear, read
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    NOW,
    OPERATIONS,
    REPORT,
    Batches,
    announcement_body,
    assert_counters_are_a_recount,
    assert_everything_is_accounted_for,
    message,
    process,
    report_body,
)
from tests.support.strategies import Fleet, arrangements, streams
from worker.store.database import Database
from worker.store.tables import UtcDateTime

pytestmark = pytest.mark.each_database(full=True)


@given(arrangement=arrangements())
@settings(max_examples=150)
async def test_any_order_any_batches_and_any_repetition_end_in_the_same(
    database: Database, arrangement: tuple[Batches, Fleet]
) -> None:
    batches, fleet = arrangement
    await clear(database)

    tally = await process(database, batches)

    fleet.assert_is(await read(database))
    assert_everything_is_accounted_for(tally)


@pytest.mark.parametrize("announced_first", [True, False])
async def test_a_report_with_the_id_of_the_announcement_is_applied_whichever_comes_first(
    database: Database, announced_first: bool
) -> None:
    announcement = message(announcement_body(OPERATIONS[0], DEVICES[:1]), ANNOUNCEMENT, "one")
    report = message(report_body(OPERATIONS[0], DEVICES[0], "SUCCESS"), REPORT, "one")

    await process(database, [[announcement], [report]] if announced_first else [[report], [announcement]])

    assert (await read(database)).operations[OPERATIONS[0]].devices[DEVICES[0]].state == "SUCCESS"


async def test_parked_reports_are_taken_up_in_the_order_in_which_they_arrived(database: Database) -> None:
    """Those of one batch too: of two that contradict each other, the first holds."""
    devices = [UUID(int=n) for n in range(20)]
    parked = [
        message(report_body(OPERATIONS[0], device, state))
        for device in devices
        for state in ("FAILURE", "SUCCESS")
    ]

    await process(database, [parked, [message(announcement_body(OPERATIONS[0], devices), ANNOUNCEMENT)]])

    found = (await read(database)).operations[OPERATIONS[0]].devices
    assert Counter(device.state for device in found.values()) == {"FAILURE": 20}


@pytest.mark.parametrize("registered_first", [True, False])
async def test_history_tells_when_a_state_was_reached_not_when_it_was_taken_up(
    database: Database, registered_first: bool
) -> None:
    """As the report says, else as the sender's clock does, else when the message came."""
    sent_at, occurred_at = NOW - timedelta(minutes=1), NOW - timedelta(hours=1)
    told = message(report_body(OPERATIONS[0], DEVICES[0], "INITIATED", occurred_at=occurred_at.isoformat()))
    sent = message(report_body(OPERATIONS[0], DEVICES[0], "DISPATCHED"))
    received = message(report_body(OPERATIONS[0], DEVICES[0], "PROCESSING"))
    told, sent = replace(told, sent_at=sent_at), replace(sent, sent_at=sent_at)
    registration = [message(announcement_body(OPERATIONS[0], DEVICES[:1]), ANNOUNCEMENT)]
    reports = [told, sent, received]

    await process(database, [registration, reports] if registered_first else [reports, registration])

    async with database.read() as connection:
        query = text("SELECT state, created_at FROM device_operation_activity").columns(created_at=UtcDateTime())
        reached = {row.state: row.created_at for row in await connection.execute(query)}
    assert reached == {10: NOW, 20: occurred_at, 30: sent_at, 40: NOW}


@given(batches=streams())
@settings(max_examples=120)
async def test_after_any_stream_the_counters_are_a_recount_and_every_message_is_accounted_for(
    database: Database, batches: Batches
) -> None:
    await clear(database)

    tally = await process(database, batches)

    await assert_counters_are_a_recount(database)
    assert_everything_is_accounted_for(tally)
    open_letters = sum((await read(database)).dead_letters.values())
    assert open_letters == sum(tally.dead_lettered.values()) - tally.released
