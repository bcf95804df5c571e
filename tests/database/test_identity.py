"""Reports and announcements of different ids all count, and one without an id is known by the next best."""

import json
from uuid import UUID

import pytest

from tests.support.databases import read
from tests.support.frames import delivered
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    REPORTS,
    announcement_body,
    encoded,
    message,
    process,
    report_body,
)
from worker import jsonl
from worker.dead_letters.discard import discard
from worker.model.messages import Message
from worker.store.database import Database
from worker.store.selection import Selection

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
NIL = str(UUID(int=0))
NO_IDS = ["", NIL, UUID(int=0).hex, f"{{{NIL}}}", f"({NIL})", f"urn:uuid:{NIL}", "\0" * 16]
RAW = [b"\x80" * 8, b"\x81" * 8, b"\x80" * 7, "\N{REPLACEMENT CHARACTER}".encode() * 8, b"a\0b", b"a\0\0b", b"ab"]
"""Ids of which a lenient decoder makes fewer."""


def report(state: str, **more: object) -> bytes:
    return encoded(report_body(OPERATION, DEVICE, state, **more))


async def end(database: Database) -> tuple[str, int]:
    """The device's state, and how many of its reports were applied or late."""
    device = (await read(database)).operations[OPERATION].devices[DEVICE]
    return device.state, device.history.total()


async def test_reports_whose_message_ids_differ_in_any_byte_all_count(database: Database) -> None:
    states = ["CREATED", "INITIATED", "DISPATCHED", "PROCESSING", "TIMEOUT", "SUCCESS", "COMPLETED"]
    sent = [delivered(report(state), id_) for state, id_ in zip(states, RAW, strict=True)]

    first = await process(database, [[each] for each in sent])
    again = await process(database, [sent])

    assert (first.duplicate, again.duplicate) == (0, len(sent))
    assert await end(database) == ("COMPLETED", len(sent))


async def test_reports_whose_own_ids_differ_in_a_nul_all_count(database: Database) -> None:
    ids = ["a\0b", "a\N{REPLACEMENT CHARACTER}b", "a\0\0b"]
    states = ["CREATED", "PROCESSING", "SUCCESS"]
    bodies = [json.loads(report(state, report_id=id_)) for state, id_ in zip(states, ids, strict=True)]

    first = await process(database, [[message(body) for body in bodies]])
    again = await process(database, [[message({"reports": bodies}, REPORTS)]])

    assert (first.duplicate, again.duplicate) == (0, 3)
    assert await end(database) == ("SUCCESS", 3)


@pytest.mark.parametrize("id_", NO_IDS)
async def test_reports_with_an_id_that_is_none_are_told_apart_by_the_next_best(
    database: Database, id_: str
) -> None:
    created, success = report("CREATED", report_id=id_), report("SUCCESS", report_id=id_)
    sent = [
        message(created),
        message(success, message_id=id_),
        message(report("COMPLETED", report_id=id_), message_id="one"),
        message({"reports": [json.loads(success)]}, REPORTS, id_),
        jsonl.as_message(encoded({"body": json.loads(success), "message_id": id_})),
    ]

    first = await process(database, [sent])
    again = await process(database, [sent])

    assert first.duplicate == 0  # the line's body has other bytes than the report's: no space after a comma
    assert first.document()["applied"] == 3
    assert again.duplicate == len(sent)
    assert (await end(database))[0] == "COMPLETED"


async def test_a_duplicate_that_names_another_state_is_counted_by_service(database: Database) -> None:
    sent = [message(report(state, report_id="one")) for state in ("CREATED", "SUCCESS", "CREATED")]

    in_one = await process(database, [sent])
    later = await process(database, [sent])

    assert (in_one.duplicate, in_one.by_service["drift-service", "contradicting"]) == (2, 1)
    assert (later.duplicate, later.by_service["drift-service", "contradicting"]) == (3, 1)
    [found] = later.contradictions
    assert (found.service_id, found.report_id, found.accepted, found.named) == (
        "drift-service",
        "one",
        "CREATED",
        "SUCCESS",
    )


async def test_a_report_that_comes_again_after_it_was_discarded_is_counted_by_service(database: Database) -> None:
    again = message(report("SUCCESS", report_id="parked"))
    await process(database, [[again]])
    before = await process(database, [[again]])
    await discard(database, Selection(), "not ours", actor="me")

    after = await process(database, [[again, again]])

    assert (before.duplicate, before.by_service["drift-service", "of discarded"]) == (1, 0)
    assert (after.duplicate, after.by_service["drift-service", "of discarded"]) == (2, 2)


async def test_announcements_with_an_id_that_is_none_are_news_each_time(database: Database) -> None:
    def announced(type_: str, id_: str) -> Message:
        return message(announcement_body(OPERATION, operation_type=type_), ANNOUNCEMENT, id_)

    for type_ in ("CONVERGE", "REBOOT", "CONVERGE"):
        await process(database, [[announced(type_, NIL)]])
        assert (await read(database)).operations[OPERATION].operation_type == type_


async def test_announcements_whose_message_ids_differ_in_any_byte_all_count(database: Database) -> None:
    for number, id_ in enumerate(RAW):
        body = encoded(announcement_body(OPERATION, device_count=number))
        await process(database, [[delivered(body, id_, ANNOUNCEMENT)]])

        assert (await read(database)).operations[OPERATION].expected == number
