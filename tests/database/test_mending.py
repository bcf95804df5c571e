"""Mending loses nothing and counts nothing twice, wherever it comes in between."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import cast
from uuid import uuid4

import pytest
from aio_pika.abc import AbstractExchange
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.support.agreement import held_by_model, held_by_product
from tests.support.databases import clear, read
from tests.support.letters import (
    ALL,
    DEVICE,
    DISCARDED,
    NOBODY,
    OPERATION,
    conflict,
    history,
    mark_republished,
    replay_as_foretold,
    republished,
    rows,
    state,
    through_the_broker,
)
from tests.support.sending import (
    ANNOUNCEMENT,
    NOW,
    REPORTS,
    Batches,
    announcement_body,
    assert_everything_is_accounted_for,
    encoded,
    message,
    process,
    report_body,
)
from tests.support.strategies import Fleet, arrangements, ended
from tests.support.streams import World, batches, interleaved
from worker.amqp.publisher import Destination
from worker.config.reporters import Reporters, Service
from worker.dead_letters import paging
from worker.dead_letters.correct import correct
from worker.dead_letters.discard import discard, restore
from worker.dead_letters.export_import import export, import_, read_line
from worker.dead_letters.replay import replay
from worker.dead_letters.republish import republish
from worker.dead_letters.retention import Retention
from worker.model.messages import Message, Origin
from worker.model.outcomes import OF_DISCARDED, Action, Reason, Status
from worker.processing.batches import process_messages
from worker.store import dead_letters
from worker.store.database import Database
from worker.store.dead_letters import stored_message
from worker.store.selection import Selection

pytestmark = pytest.mark.each_database(full=True)

SEEDS = st.integers(0, 2**32)


async def replay_twice_at_once(database: Database, reporters: Reporters | None) -> None:
    await asyncio.gather(*[replay(database, ALL, actor=name, reporters=reporters) for name in "ab"])


async def discard_beside_a_replay_and_restore(database: Database, reporters: Reporters | None) -> None:
    await asyncio.gather(
        discard(database, ALL, "it is late", actor="a"), replay(database, ALL, actor="b", reporters=reporters)
    )
    await restore(database, DISCARDED, actor="a")


async def send_to_the_broker(database: Database, reporters: Reporters | None) -> None:
    """Marked before a worker has them, and they come twice."""
    found = await rows(database)
    await mark_republished(database, found)
    await process_messages(database, [republished(row) for row in [*found, *found]], reporters=reporters)


async def send_to_a_fast_worker(database: Database, reporters: Reporters | None) -> None:
    """The worker is done before they are marked."""
    found = await rows(database)
    await process_messages(database, [republished(row) for row in found], reporters=reporters)
    await mark_republished(database, found)


async def take_away_and_back(database: Database, _trust: Reporters | None) -> None:
    before = await rows(database)
    lines = [line async for page in export(database, ALL) for line in page]
    assert await import_(database, [read_line(line, 1) for line in lines], actor="me") == 0
    assert await rows(database) == before


MENDING: list[Callable[[Database, Reporters | None], Awaitable[None]]] = [
    replay_as_foretold,
    replay_twice_at_once,
    discard_beside_a_replay_and_restore,
    send_to_the_broker,
    send_to_a_fast_worker,
    take_away_and_back,
]


@given(arrangement=arrangements(), seed=SEEDS)
@settings(max_examples=60)
async def test_any_mending_between_any_batches_ends_in_the_same(
    database: Database, monkeypatch: pytest.MonkeyPatch, arrangement: tuple[Batches, Fleet], seed: int
) -> None:
    """Whatever the broker gives up, whoever is not trusted for a while, and in whatever pages it is done."""
    stream, fleet = arrangement
    random = Random(seed)  # noqa: S311
    await clear(database)

    for batch in stream:
        sent = [through_the_broker(one, abandoned=random.random() < 0.3) for one in batch]
        reporters = random.choice([None, NOBODY])
        assert_everything_is_accounted_for(await process_messages(database, sent, reporters=reporters))
        monkeypatch.setattr(paging, "SIZE", random.choice([1, 2, 500]))
        if random.random() < 0.5:
            await random.choice(MENDING)(database, reporters if random.random() < 0.3 else None)
    await replay(database, ALL, actor="me")

    stored = await read(database)
    assert ended(stored) == fleet.operations
    assert stored.dead_letters == +fleet.parked


async def test_the_product_agrees_with_the_model_when_everything_is_replayed_now_and_then(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conflicts, mismatched types and garbage included; thresholds depend on where transactions end."""
    for seed in range(4):
        await clear(database)
        random = Random(seed)  # noqa: S311
        worlds = [World(random) for _ in range(15)]
        for batch in batches(random, interleaved(random, worlds)):
            await process_messages(database, [sent.message for _, sent in batch])
            for world, sent in batch:
                for event in sent.events:
                    world.model.take(event)
            if random.random() < 0.3:
                monkeypatch.setattr(paging, "SIZE", random.choice([7, 500]))
                await replay_as_foretold(database, None)
                for world in worlds:
                    world.model.replay()
        stored = await read(database)
        for world in worlds:
            for operation in world.operations:
                actual = held_by_product(stored, operation) | {"states": None, "has tripped": None}
                expected = held_by_model(world.model, operation, []) | {"states": None, "has tripped": None}
                assert actual == expected, f"seed {seed}, operation {operation}, after\n{world.story(operation)}"


@pytest.mark.parametrize("registered_first", [True, False])
async def test_a_parked_report_that_is_replayed_and_released_by_one_batch_has_one_effect(
    database: Database, registered_first: bool
) -> None:
    await process(database, [[message(report_body(OPERATION, DEVICE, "SUCCESS"))]])
    [row] = await rows(database)
    batch = [message(report_body(OPERATION, DEVICE, "CREATED")), stored_message(row)]

    tally = await process_messages(database, batch if registered_first else batch[::-1], actor="me")

    assert_everything_is_accounted_for(tally)
    assert await state(database) == "SUCCESS"
    assert not await rows(database)
    told = [(entry.action, entry.outcome) for entry in await history(database, row)]
    parked, applied = Reason.UNKNOWN_DEVICE_OPERATION.value, "applied"
    replayed = [("replayed", applied)] if registered_first else [("replayed", parked), ("released", applied)]
    assert told == [("received", parked), *replayed]


async def test_history_keeps_what_a_replay_found_when_the_same_batch_then_releases_the_report(
    database: Database,
) -> None:
    await process(database, [[message(report_body(OPERATION, DEVICE, s)) for s in ("FAILURE", "SUCCESS")]])
    found = await rows(database)

    registration = message(report_body(OPERATION, DEVICE, "CREATED"))
    await process_messages(database, [*map(stored_message, found), registration], actor="me")

    told = [(entry.action, entry.outcome) for entry in await history(database, found[1])]
    parked = Reason.UNKNOWN_DEVICE_OPERATION.value
    assert told == [("received", parked), ("replayed", parked), ("released", "conflict")]


@pytest.mark.parametrize("report_id", [None, "one", "x" * 300, "with NUL \0"])
async def test_a_corrected_copy_counts_though_it_keeps_the_report_id_of_the_original(
    database: Database, report_id: str | None
) -> None:
    row, body = await conflict(database, report_id=report_id)

    copy, summary = await correct(database, row, encoded({**body, "state": "PROCESSING"}), None, actor="me")

    assert summary.document()["late"] == 1
    original, corrected = await rows(database, Selection(status=Status.RESOLVED))
    assert (original.id, corrected.id, corrected.corrects) == (row.id, copy, row.id)
    assert [entry.outcome for entry in await history(database, row)] == [
        "conflict",
        f"replaced by dead letter {copy}",
    ]


async def test_a_corrected_copy_is_not_said_to_be_packed_as_the_original_was(database: Database) -> None:
    origin = Origin(
        properties={"content_encoding": "gzip", "app_id": "a"},
        headers={"compression": "application/x-gzip", "h": 1},
    )
    packed = replace(message(gzip.compress(b"no report")), origin=lambda: origin)
    await process(database, [[packed]])
    [row] = await rows(database, ALL)

    await correct(database, row, encoded(report_body(OPERATION, DEVICE, "CREATED")), None, actor="me")

    _, corrected = await rows(database, Selection(status=Status.RESOLVED))
    assert (corrected.properties, corrected.headers) == ({"app_id": "a"}, {"h": 1})


async def test_a_report_corrected_into_a_bulk_message_counts(database: Database) -> None:
    row, body = await conflict(database, report_id="one")

    bulk = {"reports": [{**body, "state": "PROCESSING"}]}
    _, summary = await correct(database, row, encoded(bulk), REPORTS, actor="me")

    assert summary.document()["late"] == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (None, report_body(OPERATION, DEVICE, "CREATED")),
        (REPORTS, {"reports": [report_body(OPERATION, DEVICE, "CREATED")]}),
        (ANNOUNCEMENT, announcement_body(OPERATION, [DEVICE])),
    ],
)
async def test_what_was_discarded_while_a_replay_had_it_stays_so_and_counts_once_it_is_restored(
    database: Database, kind: str | None, body: object
) -> None:
    await process_messages(database, [through_the_broker(message(body, kind, "one"), abandoned=True)])
    stale = await rows(database)
    await discard(database, ALL, "not now", actor="me")
    await process_messages(database, [stored_message(row) for row in stale])
    assert not (await read(database)).operations

    await restore(database, DISCARDED, actor="me")
    await replay(database, ALL, actor="me")

    assert await state(database) == "CREATED"
    assert not await rows(database)


async def test_what_is_exported_comes_back_exactly_with_its_history(database: Database) -> None:
    await conflict(database)
    await process_messages(database, [through_the_broker(Message(b"\xff\x00", NOW), abandoned=True)])
    await replay(database, ALL, actor="me")
    before = {found.fingerprint: (found, await history(database, found)) for found in await rows(database)}
    lines = [read_line(line, 1) async for page in export(database, ALL) for line in page]
    await clear(database)

    assert await import_(database, lines, actor="me") == len(before) == 2
    assert await import_(database, lines, actor="me") == 0

    for found in await rows(database):
        old, told = before[found.fingerprint]
        assert {**found._mapping, "id": old.id} == {**old._mapping}
        *same, imported = await history(database, found)
        assert (same, imported.action) == (told, Action.IMPORTED)


async def test_one_report_in_two_imported_dead_letters_does_not_stop_its_registration(database: Database) -> None:
    parked = message(report_body(OPERATION, DEVICE, "SUCCESS", report_id="one"))
    await process(database, [[parked]])
    [line] = [read_line(line, 1) async for page in export(database, ALL) for line in page]
    await clear(database)
    await process_messages(database, [through_the_broker(parked, abandoned=True)])
    await replay(database, ALL, actor="me")
    await import_(database, [line], actor="me")

    await process(database, [[message(report_body(OPERATION, DEVICE, "CREATED"))]])

    assert await state(database) == "SUCCESS"


async def test_a_forged_header_gives_another_body_no_place(database: Database) -> None:
    row, _ = await conflict(database)
    forged = replace(
        republished(row), content=encoded(report_body(OPERATION, DEVICE, "COMPLETED", report_id="two"))
    )
    unknown = replace(republished(row), replay_of=uuid4())

    tally = await process_messages(database, [forged, unknown])

    assert tally.document()["dead_lettered"] == {"conflict": 1}
    assert tally.duplicate == 1
    assert [found.attempts for found in await rows(database)] == [1, 1]


async def test_who_sent_it_again_is_kept_also_where_the_worker_was_faster(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, _ = await conflict(database)

    async def publish(_destination: object, _messages: object) -> None:
        await process_messages(database, [republished(row)])

    monkeypatch.setattr("worker.dead_letters.republish.publish", publish)
    destination = Destination(cast(AbstractExchange, None), None)

    assert await republish(database, Selection(ids=[row.id]), destination, actor="me") == 1

    [*_, entry] = await history(database, row)
    assert (entry.action, entry.actor) == (Action.REPUBLISHED, "me")
    assert [found.status for found in await rows(database, Selection(ids=[row.id]))] == [Status.OPEN]


async def test_what_was_discarded_and_comes_again_is_counted_by_itself(database: Database) -> None:
    """A parked report, an unreadable message, and a report of an unknown service."""
    parked = message(report_body(OPERATION, DEVICE, "SUCCESS"))
    sent = [
        parked,
        message(b"{"),
        message(report_body(OPERATION, DEVICE, "FAILURE", service_id="unknown")),
    ]
    reporters = Reporters({"drift-service": Service()})
    await process_messages(database, sent, reporters=reporters)
    again = await process_messages(database, sent, reporters=reporters)
    assert not any(outcome == OF_DISCARDED for (_, outcome), count in again.by_service.items() if count)
    await discard(database, ALL, "no", actor="me")

    tally = await process_messages(database, sent, reporters=reporters)

    assert tally.duplicate == len(sent)
    assert {service: n for (service, outcome), n in tally.by_service.items() if outcome == OF_DISCARDED} == {
        "drift-service": 1,
        "": 2,
    }


async def test_a_message_that_comes_after_retention_emptied_its_dead_letter_counts(database: Database) -> None:
    await process(database, [[message(report_body(OPERATION, DEVICE, "SUCCESS"))]])
    found = await rows(database)
    await mark_republished(database, found)
    await Retention(bodies=timedelta(seconds=-1)).prune(database)

    registration = message(report_body(OPERATION, DEVICE, "CREATED"))
    await process_messages(database, [registration, republished(found[0])])

    assert await state(database) == "SUCCESS"


async def test_a_message_that_came_while_its_dead_letter_was_discarded_is_not_marked_as_sent(
    database: Database,
) -> None:
    await process(database, [[message(report_body(OPERATION, DEVICE, "SUCCESS"))]])
    found = await rows(database)
    await discard(database, ALL, "not now", actor="me")
    await process_messages(database, [republished(found[0])])
    await restore(database, DISCARDED, actor="me")
    await mark_republished(database, found)

    await process(database, [[message(report_body(OPERATION, DEVICE, "CREATED"))]])
    await replay(database, ALL, actor="me")

    assert await state(database) == "SUCCESS"


async def test_history_tells_of_a_release_by_the_batch_that_it_came_in_also_later(database: Database) -> None:
    reports = [report_body(OPERATION, DEVICE, state) for state in ("FAILURE", "CREATED")]
    await process(database, [map(message, reports)])
    [row] = await rows(database, Selection(status=None))
    before = await history(database, row)

    await process_messages(database, [republished(row)])

    after = await history(database, row)
    assert [entry.action for entry in before] == [Action.RECEIVED, Action.RELEASED]
    assert after[:2] == before
    assert [entry.outcome for entry in after[2:]] == ["duplicate"]


async def somebody_waits_for_a_lock(database: Database) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with database.read() as connection:
        return bool((await connection.execute(text(query))).scalar_one())


async def test_a_report_that_is_discarded_while_its_registration_waits_for_it_stays_so(
    postgresql_database: Database,
) -> None:
    await process(postgresql_database, [[message(report_body(OPERATION, DEVICE, "SUCCESS"))]])
    found = await rows(postgresql_database)
    async with postgresql_database.write() as connection:
        now = datetime.now(UTC)
        await dead_letters.set_status(connection, found, Status.DISCARDED, Action.DISCARDED, "", "me", now)
        registration = message(report_body(OPERATION, DEVICE, "CREATED"))
        registering = asyncio.create_task(process(postgresql_database, [[registration]]))
        async with asyncio.timeout(30):
            while not await somebody_waits_for_a_lock(postgresql_database):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.01)

    assert (await registering).released == 0
    assert await state(postgresql_database) == "CREATED"
    assert len(await rows(postgresql_database, DISCARDED)) == 1
