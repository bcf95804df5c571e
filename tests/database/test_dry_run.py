"""A dry run of a replay tells exactly what the replay then does, and is in nobody's way."""

import asyncio
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statemachine import State
from tests.support.databases import clear
from tests.support.letters import (
    ALL,
    DEVICE,
    NOBODY,
    OPERATION,
    Rows,
    conflict,
    replay_as_foretold,
    through_the_broker,
)
from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    REPORTS,
    Batches,
    announcement_body,
    assert_counters_are_a_recount,
    message,
    process,
    report_body,
)
from tests.support.strategies import streams
from worker.config.reporters import Reporters, Service
from worker.dead_letters import paging
from worker.dead_letters.replay import preview, replay
from worker.model.messages import Message
from worker.model.outcomes import Reason
from worker.processing import backlog
from worker.processing import batches as batches_module
from worker.processing.batches import process_messages
from worker.store import dead_letters
from worker.store.database import Database
from worker.store.selection import Selection

EARLY = report_body(OPERATION, DEVICE, "INITIATED")
NARROW = Reporters({"drift-service": Service(operation_types=frozenset(["CONVERGE"]))})
"""Parks EARLY, whose operation has no type yet, and refuses it once REBOOT is announced."""
REBOOT = message(announcement_body(OPERATION, [DEVICE], operation_type="REBOOT"), ANNOUNCEMENT)
TRUSTS = [
    None,
    NOBODY,
    NARROW,
    Reporters({"drift-service": Service(states=frozenset([State.CREATED, State.SUCCESS]))}),
]
SEEDS = st.integers(0, 2**32)


def given_up(sent: Message) -> Message:
    return through_the_broker(sent, abandoned=True)


@given(stream=streams(), seed=SEEDS)
@settings(max_examples=60)
async def test_a_dry_run_tells_what_the_replay_then_does_whatever_the_trust(
    database: Database, monkeypatch: pytest.MonkeyPatch, stream: Batches, seed: int
) -> None:
    random = Random(seed)  # noqa: S311
    await clear(database)
    for batch in stream:
        sent = [through_the_broker(one, abandoned=random.random() < 0.2) for one in batch]
        await process_messages(database, sent, reporters=random.choice(TRUSTS))
    monkeypatch.setattr(paging, "SIZE", random.choice([1, 2, 3, 500]))

    await replay_as_foretold(
        database, random.choice(TRUSTS), Selection(reason=random.choice([None, None, *Reason]))
    )

    await assert_counters_are_a_recount(database)


async def test_a_dry_run_tells_that_a_registration_of_its_own_page_releases_a_report(database: Database) -> None:
    await process(database, [[message(report_body(OPERATION, DEVICE, "SUCCESS"))]])
    await process_messages(database, [message(report_body(OPERATION, DEVICE, "CREATED"))], reporters=NOBODY)

    await replay_as_foretold(database, None)


async def test_a_dry_run_releases_a_report_once_however_often_its_registration_was_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "SIZE", 1)
    await process(database, [[message(report_body(OPERATION, DEVICE, "SUCCESS"))]])
    for service in ("stranger", "friend"):
        registration = message({**report_body(OPERATION, DEVICE, "CREATED"), "service_id": service})
        await process_messages(database, [registration], reporters=Reporters({}))

    friends = Reporters({"drift-service": Service(), "friend": Service()})
    await replay_as_foretold(database, friends, Selection(reason=Reason.UNKNOWN_SERVICE))


@pytest.mark.parametrize("size", [1, 2])
async def test_a_dry_run_knows_whose_identity_an_earlier_page_has_given_away(
    database: Database, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(paging, "SIZE", size)
    for id_ in ("one", "two"):
        registration = message(report_body(OPERATION, DEVICE, "CREATED", report_id=id_))
        await process_messages(database, [through_the_broker(registration, abandoned=True)])
    await process(database, [[message(report_body(OPERATION, DEVICE, "INITIATED", report_id="two"))]])

    # The first registration has the parked report refused, so that the second one takes its identity.
    await replay_as_foretold(database, Reporters({"drift-service": Service(states=frozenset([State.CREATED]))}))


async def test_a_dry_run_does_not_release_what_comes_in_its_own_turn_after_a_registration_that_failed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "SIZE", 2)
    await process(database, [[message([])]])
    for id_ in ("one", "two"):
        registration = message(report_body(OPERATION, DEVICE, "CREATED", report_id=id_))
        await process_messages(database, [through_the_broker(registration, abandoned=True)])
    await process(database, [[message(report_body(OPERATION, DEVICE, "INITIATED", report_id="one"))]])

    await replay_as_foretold(database, None)


async def test_a_dry_run_knows_an_unreadable_report_that_was_kept_before(database: Database) -> None:
    bulk = through_the_broker(message({"reports": [None]}, REPORTS, "one"))
    await process_messages(database, [bulk])
    await process_messages(database, [replace(bulk, abandoned="it was full")])

    await replay_as_foretold(database, None, Selection(reason=Reason.UNDELIVERABLE))


@pytest.mark.parametrize("size", [1, 2])
async def test_a_dry_run_counts_a_report_that_it_has_parked_itself_and_a_later_page_refuses(
    database: Database, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(paging, "SIZE", size)
    bulk = message({"reports": [EARLY]}, REPORTS)  # taken apart, it leaves a dead letter of its report
    for one in (given_up(bulk), given_up(REBOOT)):
        await process_messages(database, [one])

    await replay_as_foretold(database, NARROW)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_dry_run_knows_a_report_again_that_it_has_refused_on_its_release(
    database: Database, monkeypatch: pytest.MonkeyPatch, is_stored: bool, size: int
) -> None:
    monkeypatch.setattr(paging, "SIZE", size)
    first, again = (message({"reports": reports}, REPORTS, "one") for reports in ([EARLY], [EARLY, None]))
    for one in (first if is_stored else given_up(first), given_up(REBOOT), given_up(again)):
        await process_messages(database, [one])

    await replay_as_foretold(database, NARROW, Selection(reason=Reason.UNDELIVERABLE))


async def test_a_dry_run_releases_the_oldest_first_also_of_those_that_it_has_parked_itself(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "SIZE", 1)
    monkeypatch.setattr(backlog, "MAX_REPORTS", 2)  # of three, so that they are released after the registration
    states = ("PROCESSING", "INITIATED", "DISPATCHED")
    oldest, *younger = (message(report_body(OPERATION, DEVICE, state)) for state in states)
    for one in (given_up(oldest), *younger, given_up(REBOOT)):
        await process_messages(database, [one])

    await replay_as_foretold(database, None, Selection(reason=Reason.UNDELIVERABLE))


async def test_a_dry_run_weighs_what_it_has_parked_itself_where_it_divides_a_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "SIZE", 3)
    monkeypatch.setattr(backlog, "MAX_REPORTS", 1)

    def sent(device: UUID, state: str) -> Message:
        return message(report_body(OPERATION, device, state))

    light, heavy = DEVICES[:2]
    parked = [given_up(sent(heavy, state)) for state in ("INITIATED", "DISPATCHED", "PROCESSING")]
    await process_messages(database, parked)
    # One transaction registers `light` and decides its report in its own turn, another releases those of `heavy`.
    for one in (given_up(sent(light, "CREATED")), sent(light, "SUCCESS"), given_up(sent(heavy, "CREATED"))):
        await process_messages(database, [one])

    await replay_as_foretold(database, None)


@pytest.mark.parametrize("limit", [None, 3])
async def test_a_dry_run_selects_what_the_replay_does_though_pages_change_what_follows(
    database: Database, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    monkeypatch.setattr(paging, "SIZE", 1)
    narrow = Service(operation_types=frozenset(["CONVERGE"]))
    boss = report_body(OPERATION, DEVICE, "CREATED", operation_type="REBOOT") | {"service_id": "boss"}
    elsewhere = {**boss, "operation_id": str(OPERATIONS[1])}
    late = {**elsewhere, "device_id": str(DEVICES[1])}
    # Released, this one is done with, or turns out to be not allowed either.
    early = report_body(OPERATION, DEVICE, "SUCCESS") | {"service_id": "friend" if limit else "drift-service"}
    for body in (boss, early, elsewhere, late):
        reporters = Reporters({"drift-service": narrow, "friend": Service(), "boss": Service(states=frozenset())})
        await process_messages(database, [message(body)], reporters=reporters)
    selection = ALL if limit else Selection(reason=Reason.NOT_ALLOWED)
    reporters = Reporters({"drift-service": narrow, "friend": Service(), "boss": Service()})

    foretold, _ = await preview(database, selection, reporters=reporters, limit=limit)
    summary = await replay(database, selection, actor="me", reporters=reporters, limit=limit)

    assert foretold.document() == summary.document()


async def test_a_dry_run_has_the_pages_of_a_replay_at_its_rate(database: Database) -> None:
    registration, early = (message(report_body(OPERATION, DEVICE, state)) for state in ("CREATED", "SUCCESS"))
    for one in (given_up(registration), early):
        await process_messages(database, [one])

    foretold, _ = await preview(database, ALL, rate=1.9)
    summary = await replay(database, ALL, actor="me", rate=1.9)

    assert foretold.document() == summary.document()
    assert summary.selected == 1, "the first page releases what the second one would have had"


async def test_no_worker_waits_for_a_dry_run_and_none_breaks_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "SIZE", 1)
    await conflict(database)
    await process(database, [[message(report_body(OPERATION, DEVICE, "CANCELLED"))]])
    page = dead_letters.page

    async def page_while_a_worker_works(*arguments: Any) -> tuple[Rows, int]:
        late = message(report_body(OPERATION, DEVICE, "TIMEOUT", report_id=str(uuid4())))
        async with asyncio.timeout(5):
            await process_messages(database, [late])
        return await page(*arguments)

    monkeypatch.setattr(dead_letters, "page", page_while_a_worker_works)
    foretold, outcomes = await preview(database, ALL)

    assert len(outcomes) == 2
    assert foretold.document()["still_dead"] == {"conflict": 2}


async def test_a_dry_run_is_cut_into_transactions_as_the_replay_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "MAX_WEIGHT", 1)
    registration = message({**report_body(OPERATION, DEVICE, "CREATED"), "service_id": "boss"})
    early = message(report_body(OPERATION, DEVICE, "SUCCESS"))
    await process_messages(database, [registration, early], reporters=Reporters({"drift-service": Service()}))

    await replay_as_foretold(database, None)
