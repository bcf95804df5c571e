"""Who may report: what is not trusted changes nothing, and comes through once it is, or comes by a better way."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from statemachine import State
from tests.support.databases import clear, read
from tests.support.letters import republished, rows
from tests.support.sending import ANNOUNCEMENT, DEVICES, OPERATIONS, announcement_body, message, report_body
from worker.config.reporters import Reporters, Service
from worker.dead_letters.replay import replay
from worker.model.identity import device_operation_id
from worker.model.messages import Message, Origin
from worker.model.outcomes import Tally
from worker.processing.batches import process_messages
from worker.store.database import Database
from worker.store.selection import Selection

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
NARROW = Service(operation_types=frozenset(["CONVERGE"]), states=frozenset([State.CREATED, State.SUCCESS]))
TRUST = Reporters({"drift-service": NARROW, "boss": Service()})
VOUCHED = Reporters({"drift-service": Service()}, verify_user_id=True)


def sent_by(user_id: str | None, sent: Message, exchange: str = "device-operations") -> Message:
    return replace(sent, origin=lambda: Origin(exchange, "", {} if user_id is None else {"user_id": user_id}))


def report(state: str, service: str, **more: Any) -> Message:
    return message({**report_body(OPERATION, DEVICE, state, **more), "service_id": service})


def announcement(message_id: str | None = "one") -> Message:
    return message(announcement_body(OPERATION, [DEVICE]), ANNOUNCEMENT, message_id)


async def state(database: Database) -> str | None:
    found = (await read(database)).operations.get(OPERATION)
    return found.devices[DEVICE].state if found else None


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (report("CREATED", "stranger"), "unknown_service"),
        (report("CANCELLED", "drift-service"), "not_allowed"),
        (report("CREATED", "drift-service", operation_type="REBOOT"), "not_allowed"),
        (report("CREATED", "drift-service"), "not_allowed"),  # of no known type
        (report("CREATED", "drift-service", operation_type="CONVERGE"), None),
        (report("CREATED", "boss"), None),
    ],
)
async def test_a_service_may_report_what_it_is_named_for(
    database: Database, sent: Message, reason: str | None
) -> None:
    tally = await process_messages(database, [sent], reporters=TRUST)

    assert tally.document()["dead_lettered"] == ({reason: 1} if reason else {})
    assert await state(database) == (None if reason else "CREATED")


@pytest.mark.parametrize(
    ("sent", "is_trusted"),
    [
        (sent_by("drift-service", report("CREATED", "drift-service")), True),
        (sent_by("stranger", report("CREATED", "drift-service")), False),
        (sent_by(None, report("CREATED", "drift-service")), False),
        (sent_by(None, report("CREATED", "drift-service"), exchange=""), True),  # by no broker
        (sent_by("drift-service", announcement()), True),
        (sent_by("stranger", announcement()), False),
        (sent_by(None, announcement()), False),
    ],
)
async def test_the_broker_has_to_vouch_for_who_sent_it(
    database: Database, sent: Message, is_trusted: bool
) -> None:
    tally = await process_messages(database, [sent], reporters=VOUCHED)

    assert tally.document()["dead_lettered"] == ({} if is_trusted else {"unknown_service": 1})
    assert await state(database) == ("CREATED" if is_trusted else None)


@pytest.mark.parametrize("tries", [0, 1])
@pytest.mark.parametrize("message_id", ["one", None])
async def test_an_announcement_that_was_not_trusted_is_taken_once_it_is(
    database: Database, message_id: str | None, tries: int
) -> None:
    await process_messages(database, [sent_by(None, announcement(message_id))], reporters=VOUCHED)
    for _ in range(tries):
        await replay(database, Selection(), actor="me", reporters=VOUCHED)

    await replay(database, Selection(), actor="me")

    assert await state(database) == "CREATED"


@pytest.mark.parametrize("sent", [announcement, lambda: report("CREATED", "drift-service", report_id="one")])
@pytest.mark.parametrize("at_once", [True, False])
async def test_what_was_not_trusted_is_taken_when_it_comes_by_a_better_way(
    database: Database, sent: Any, at_once: bool
) -> None:
    both = [sent_by("stranger", sent()), sent_by("drift-service", sent())]

    for batch in [both] if at_once else [[one] for one in both]:
        await process_messages(database, batch, reporters=VOUCHED)

    assert await state(database) == "CREATED"


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_report_that_is_not_allowed_takes_no_id_whenever_the_registration_comes(
    database: Database, at_once: bool
) -> None:
    """Of an operation that turns out to be of another type than its service may report on."""
    registration = report("CREATED", "boss", operation_type="REBOOT")
    refused, better = (report("SUCCESS", service, report_id="one") for service in ("drift-service", "boss"))
    for first in permutations([registration, refused]):
        await clear(database)
        stream = [*first, better]
        for batch in [stream] if at_once else [[one] for one in stream]:
            await process_messages(database, batch, reporters=TRUST)
        assert await state(database) == "SUCCESS"


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_report_that_its_release_refuses_is_counted_once_however_often_it_comes(
    database: Database, at_once: bool
) -> None:
    refused = report("SUCCESS", "drift-service")
    stream = [refused, report("CREATED", "boss", operation_type="REBOOT"), refused]

    tally = Tally()
    for batch in [stream] if at_once else [[one] for one in stream]:
        tally.add(await process_messages(database, batch, reporters=TRUST))

    assert (tally.duplicate, tally.dead_lettered) == (1, {"unknown_device_operation": 1, "not_allowed": 1})
    assert [row.reason for row in await rows(database)] == ["not_allowed"]


async def test_a_parked_report_that_turns_out_untrusted_stands_beside_its_copy_that_was_given_up(
    database: Database,
) -> None:
    early = message(report_body(OPERATION, DEVICE, "SUCCESS"), message_id="one")
    await process_messages(database, [replace(early, abandoned="it was full")])
    await process_messages(database, [early])

    refused = (await replay(database, Selection(), actor="me", reporters=Reporters({}))).document()
    assert (refused["duplicate"], refused["still_dead"]) == (1, {"unknown_service": 1})
    await process_messages(database, [message(report_body(OPERATION, DEVICE, "CREATED"))])
    accepted = (await replay(database, Selection(), actor="me")).document()

    assert (accepted["selected"], accepted["applied"]) == (1, 1)
    assert await state(database) == "SUCCESS"


async def test_a_report_that_gives_up_its_id_makes_room_for_another_of_the_same_batch(database: Database) -> None:
    await process_messages(database, [report("SUCCESS", "stranger", report_id="one")])
    [row] = await rows(database)

    both = [republished(row), report("SUCCESS", "boss", report_id="one")]
    tally = await process_messages(database, both, reporters=TRUST)

    assert tally.dead_lettered == {"unknown_service": 1, "unknown_device_operation": 1}
    assert sorted(row.reason for row in await rows(database)) == ["unknown_device_operation", "unknown_service"]


async def test_a_stranger_cannot_take_the_place_of_a_dead_letter(database: Database) -> None:
    """By a message whose id makes it look like the report of another."""
    parked = report("SUCCESS", "drift-service")
    looks_so = str(device_operation_id(OPERATION, DEVICE))
    hostile = Message(parked.body, parked.received_at, message_id=looks_so)
    await process_messages(database, [sent_by("stranger", hostile)], reporters=VOUCHED)
    await process_messages(database, [sent_by("drift-service", parked)], reporters=VOUCHED)

    await process_messages(database, [sent_by("drift-service", announcement())], reporters=VOUCHED)

    assert await state(database) == "SUCCESS"
