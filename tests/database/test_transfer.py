"""What is imported behaves as if it had been rejected here, and never stands in the way of a report."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid5

import pytest

from statemachine import Verdict
from tests.support.databases import clear
from tests.support.letters import ALL, DEVICE, OPERATION, conflict, rows, state
from tests.support.sending import ANNOUNCEMENT, NOW, announcement_body, encoded, message, process, report_body
from worker.dead_letters.discard import discard
from worker.dead_letters.export_import import export, import_, read_line
from worker.dead_letters.retention import Retention
from worker.errors import DeviceopsError
from worker.model.identity import NAMESPACE
from worker.model.messages import Message, Origin
from worker.model.parsing import set_aliases
from worker.store.database import Database
from worker.store.selection import Selection

EVERYTHING = Selection(status=None)


async def exported(database: Database, selection: Selection = EVERYTHING) -> list[bytes]:
    return [line async for page in export(database, selection) for line in page]


async def test_an_imported_report_is_taken_up_if_its_registration_is_here_already(database: Database) -> None:
    await process(database, [[message(report_body(OPERATION, DEVICE, "SUCCESS"))]])
    lines = await exported(database)
    await clear(database)
    await process(database, [[message(report_body(OPERATION, DEVICE, "CREATED"))]])

    assert await import_(database, [read_line(line, 1) for line in lines], actor="me") == 1

    assert await state(database) == "SUCCESS"
    assert await rows(database) == []


async def test_an_imported_closed_dead_letter_does_not_take_the_place_of_its_report(database: Database) -> None:
    _, body = await conflict(database, report_id="one")
    await discard(database, ALL, "a test", actor="me")
    lines = [read_line(line, 1) for line in await exported(database)]
    await clear(database)
    assert await import_(database, lines, actor="me") == 1
    assert await import_(database, lines, actor="me") == 0

    created = report_body(OPERATION, DEVICE, "CREATED")
    tally = await process(database, [[message(created), message(body)]])

    assert tally.verdicts == {Verdict.APPLIED: 2}


@pytest.mark.parametrize("resolved_at", [None, "2099-01-01T00:00:00Z"])
async def test_what_is_imported_is_no_younger_than_the_import(database: Database, resolved_at: str | None) -> None:
    await conflict(database, report_id="one")
    await discard(database, ALL, "a test", actor="me")
    [line] = await exported(database)
    odd = {**json.loads(line), "received_at": "2099-01-01T00:00:00Z", "resolved_at": resolved_at}
    await clear(database)

    assert await import_(database, [read_line(json.dumps(odd).encode(), 1)], actor="me") == 1

    [row] = await rows(database, EVERYTHING)
    assert row.received_at <= row.resolved_at <= datetime.now(UTC)
    assert (await Retention(closed=timedelta(0)).prune(database))["dead_letters"] == 1


async def test_the_same_report_rejected_here_and_imported_is_one_dead_letter(database: Database) -> None:
    await conflict(database, report_id="one")

    assert await import_(database, [read_line(line, 1) for line in await exported(database)], actor="me") == 0

    assert len(await rows(database, EVERYTHING)) == 1


async def test_a_parked_report_is_imported_whatever_its_type_is_called(database: Database) -> None:
    """By a framework's name, or as a CloudEvent whose message has a type of its own."""
    body = encoded(report_body(OPERATION, DEVICE, "SUCCESS"))
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "device-operation.report"}
    headers = {f"ce-{name}": value for name, value in event.items()}
    cloud_event = Message(body, NOW, type="any", origin=lambda: Origin("exchange", "key", headers=headers))
    set_aliases({"MyApp.Report, MyApp": "device-operation.report"})
    try:
        await process(database, [[message(body, "MyApp.Report, MyApp"), cloud_event]])
        lines = await exported(database)
        await clear(database)

        assert await import_(database, [read_line(line, 1) for line in lines], actor="me") == 2
    finally:
        set_aliases({})
    with pytest.raises(DeviceopsError, match=r"only for a readable report: type: 'MyApp.Report, MyApp' is not"):
        [read_line(line, 1) for line in lines]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"body_base64": "bm8gSlNPTg=="}, "reason: unknown_device_operation is only for a readable report"),
        ({"type": ANNOUNCEMENT}, "reason: unknown_device_operation is only for a readable report"),
        ({"body_base64": "not base64!"}, "body_base64: "),
        ({"detail": "a\0b"}, "detail: has a NUL character"),
        ({"headers": []}, "headers: is not an object"),
        ({"headers": {"x": float("nan")}}, "has NaN, which is not JSON"),
        ({"attempts": -1}, "attempts: "),
        ({"received_at": "2026-01-31T08:00:00"}, "received_at: "),
    ],
)
async def test_a_line_that_cannot_be_kept_is_refused_by_its_number(
    sqlite_database: Database, change: dict[str, Any], wrong: str
) -> None:
    await process(sqlite_database, [[message(report_body(OPERATION, DEVICE, "SUCCESS"))]])
    [line] = await exported(sqlite_database)

    with pytest.raises(DeviceopsError, match=f"^line 7: {wrong}"):
        read_line(json.dumps({**json.loads(line), **change}).encode(), 7)


async def test_no_report_can_be_parked_in_the_way_of_an_announcement(database: Database) -> None:
    taken = str(uuid5(NAMESPACE, "announcement one"))
    early = message(report_body(OPERATION, DEVICE, "SUCCESS", report_id=taken))
    announcement = message(announcement_body(OPERATION, [DEVICE]), ANNOUNCEMENT, "one")

    tally = await process(database, [[early], [announcement]])

    assert (tally.announced, tally.released, tally.duplicate) == (1, 1, 1)
    assert await state(database) == "CREATED"
