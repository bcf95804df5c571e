"""Different bytes are different ids, on every way in; what is no id counts as none."""

import json
from uuid import UUID, uuid5

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from structlog.testing import capture_logs

from tests.support.databases import read
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    NOW,
    OPERATIONS,
    REPORTS,
    announcement_body,
    encoded,
    message,
    process,
    report_body,
)
from worker import jsonl
from worker.amqp.delivery import Delivery
from worker.amqp.reading import as_message
from worker.dead_letters.discard import discard
from worker.model.identity import MAX_ID, NAMESPACE, body_id, identity
from worker.model.messages import Message
from worker.model.outcomes import CONTRADICTING, Contradiction, Tally
from worker.store.database import Database
from worker.store.dead_letters import Selection
from worker.watch.rejection_log import Contradictions

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
NIL = str(UUID(int=0))
NO_IDS = ["", NIL, UUID(int=0).hex, f"{{{NIL}}}", f"({NIL})", f"urn:uuid:{NIL}", "\0" * 16]
RAW = [b"\x80" * 8, b"\x81" * 8, b"\x80" * 7, "\N{REPLACEMENT CHARACTER}".encode() * 8, b"a\0b", b"a\0\0b", b"ab"]
"""Ids of which a lenient decoder makes fewer."""


def delivered(body: bytes, message_id: bytes, type_: str | None = None) -> Message:
    """A message as the broker delivers it, with an id of any bytes."""
    header = ContentHeader(body_size=len(body), properties=Basic.Properties(message_id="?", message_type=type_))
    marshalled = header.marshal()
    at = marshalled.index(b"\x01?")
    marshalled = marshalled[:at] + bytes([len(message_id)]) + message_id + marshalled[at + 2 :]
    method = b"\0\x3c\0\x3c" + Basic.Deliver("consumer", 1, False, "exchange", "key").marshal()
    return as_message(Delivery(method, marshalled, body), NOW)


def report(state: str, **more: object) -> bytes:
    return encoded(report_body(OPERATION, DEVICE, state, **more))


async def end(database: Database) -> tuple[str, int]:
    """The device's state, and how many of its reports were applied or late."""
    device = (await read(database)).operations[OPERATION].devices[DEVICE]
    return device.state, device.history.total()


@given(st.lists(st.binary(min_size=1, max_size=255), unique=True, max_size=20))
def test_message_ids_of_different_bytes_are_different_ids(ids: list[bytes]) -> None:
    found = [delivered(b"{}", id_).message_id for id_ in ids if id_ not in [text.encode() for text in NO_IDS]]

    assert len(set(found)) == len(found)
    assert None not in found


@given(st.lists(st.text(st.characters(exclude_categories=()), min_size=1), unique=True, max_size=20))
def test_ids_of_different_text_are_different_and_can_be_stored(ids: list[str]) -> None:
    found = [identity(id_) for id_ in ids if id_ not in NO_IDS]

    assert len(set(found)) == len(found)
    for id_ in found:
        assert id_ is not None
        assert len(id_) <= MAX_ID
        assert b"\0" not in id_.encode()


def test_an_id_that_cannot_be_kept_as_it_is_becomes_the_uuid_of_its_bytes() -> None:
    assert delivered(b"{}", b"\x80\x81").message_id == body_id(b"\x80\x81")
    assert identity("a\0b") == str(uuid5(NAMESPACE, "a\0b"))
    assert identity("ä" * 256) == str(uuid5(NAMESPACE, "ä" * 256))
    assert identity("ä" * 255) == "ä" * 255


@pytest.mark.parametrize("id_", [*NO_IDS, NIL.upper(), f"URN:UUID:{NIL}", None, 5, {}])
def test_an_empty_or_all_zero_id_is_none(id_: object) -> None:
    assert identity(id_) is None


@pytest.mark.parametrize("id_", ["0", "00", NIL[:-1], NIL[:-1] + "1", " ", "\0", "\0" * 15])
def test_what_is_almost_an_all_zero_id_is_one(id_: str) -> None:
    assert identity(id_) is not None


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


async def test_duplicates_that_name_another_state_are_one_warning_a_minute_with_what_they_say() -> None:
    found = Contradiction("drift-service", OPERATION, DEVICE, "one", "CREATED", "SUCCESS")
    batch = Tally(contradictions=[found])
    batch.by_service["drift-service", CONTRADICTING] = 2
    contradictions = Contradictions()
    with capture_logs() as logged:
        for tally in (Tally(), batch, batch, batch):
            contradictions.note(tally)
        assert [(line["log_level"], line["duplicates"]) for line in logged] == [("warning", 2)], (
            "the first at once"
        )
        assert logged[0]["first"] == [
            {
                "service_id": "drift-service",
                "operation_id": str(OPERATION),
                "device_id": str(DEVICE),
                "report_id": "one",
                "accepted": "CREATED",
                "named": "SUCCESS",
            }
        ]
        contradictions.close()
    assert [line["duplicates"] for line in logged] == [2, 4], "and the rest in one"


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


@pytest.mark.parametrize(("keys", "verdict"), [((NIL, NIL), "applied"), (("one", "one"), "duplicate")])
def test_an_idempotency_key_of_zeros_is_none(api: httpx.Client, keys: tuple[str, str], verdict: str) -> None:
    path = f"/v0/operations/{OPERATION}/devices/{DEVICE}/"
    answers = [
        api.put(path, json={"state": state, "service_id": "s"}, headers={"Idempotency-Key": key})
        for state, key in zip(("CREATED", "SUCCESS"), keys, strict=True)
    ]

    assert [answer.headers["X-Verdict"] for answer in answers] == ["applied", verdict]
