"""A field that plays no part in any state never costs it: what cannot be read of it is left out, and noted."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select

from tests.support.databases import read
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    NOW,
    OPERATIONS,
    REPORTS,
    announcement_body,
    message,
    process,
    report_body,
)
from worker.store.database import Database
from worker.store.tables import activity, operations

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
UNREADABLE_TIMES = [1722253298.24, 0, "", "yesterday", "2026-01-31", "2026-01-31T08:00:00", [], {"at": 1}, True]
DECORATION: list[dict[str, Any]] = [
    *({"occurred_at": value} for value in UNREADABLE_TIMES),
    {"occurred_at": "2016-12-31T23:59:60Z"},
    {"occurred_at": None, "reason": None, "report_id": None, "operation_type": None},
    {"operation_type": "", "reason": "", "report_id": ""},
    *({"reason": value} for value in (5, ["a"], {"code": 5}, False)),
    *({"report_id": value} for value in (5, ["a"], {"id": 5}, False)),
]


def report(state: str, **more: object) -> dict[str, Any]:
    return report_body(OPERATION, DEVICE, state, **more)


def announcement(**more: object) -> dict[str, Any]:
    return announcement_body(OPERATION, [DEVICE], **more)


async def history(database: Database) -> Sequence[Any]:
    """The accepted reports, in the order of their states."""
    async with database.read() as connection:
        return (await connection.execute(select(activity).order_by(activity.c.state))).all()


@pytest.mark.parametrize("more", DECORATION, ids=str)
@pytest.mark.parametrize("in_bulk", [False, True])
async def test_no_decoration_costs_a_final_state(database: Database, more: dict[str, Any], in_bulk: bool) -> None:
    """Neither of a report that is applied at once, nor of one that is parked."""
    early, late = report("SUCCESS", **more), report("COMPLETED", **more)
    sent = [message({"reports": [each]}, REPORTS) if in_bulk else message(each) for each in (early, late)]

    tally = await process(database, [[sent[0]], [message(report("CREATED"))], [sent[1]]])

    assert (tally.dead_letter_counts(), tally.released) == ({"unknown_device_operation": 1}, 1)
    assert (await read(database)).operations[OPERATION].devices[DEVICE].state == "COMPLETED"


@pytest.mark.parametrize("value", UNREADABLE_TIMES, ids=str)
async def test_a_time_that_cannot_be_read_is_noted_with_the_entry(database: Database, value: object) -> None:
    sent = [message(report("CREATED")), message(report("SUCCESS", occurred_at=value))]

    tally = await process(database, [sent])

    created, success = await history(database)
    assert (created.note, success.created_at) == (None, NOW)
    assert success.note == f"occurred_at {value!r} cannot be read, and is left out"
    assert tally.by_service["drift-service", "left out"] == 1


@pytest.mark.parametrize(("value", "kept"), [(5, "5"), ({"code": [1, None]}, '{"code":[1,null]}'), ("", "")])
async def test_a_reason_that_is_no_text_is_kept_as_its_json(database: Database, value: object, kept: str) -> None:
    await process(database, [[message(report("CREATED", reason=value))]])

    [created] = await history(database)
    assert created.reason == kept


ANNOUNCED: list[dict[str, Any]] = [
    *({"created_at": value} for value in UNREADABLE_TIMES),
    *(
        {name: 5}
        for name in ("schedule_type", "schedule_args", "operation_device_query", "arguments", "created_by")
    ),
    {"arguments": {"a": float("nan")}},
    {"schedule_type": "DAILY"},
    {"created_by": "me"},
]


@pytest.mark.parametrize("more", ANNOUNCED, ids=str)
async def test_no_decoration_costs_an_announcement(database: Database, more: dict[str, Any]) -> None:
    tally = await process(database, [[message(announcement(**more), ANNOUNCEMENT)]])

    [name] = more
    [created] = await history(database)
    assert created.note.startswith(f"{name} ")
    assert (tally.announced, tally.by_service["", "left out"]) == (1, 1)
    async with database.read() as connection:
        row = (await connection.execute(select(operations))).one()
    assert getattr(row, name) == (NOW if name == "created_at" else None)
    assert (await read(database)).operations[OPERATION].devices[DEVICE].state == "CREATED"
