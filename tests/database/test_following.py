"""Following the log of changes: every reader sees each change once, in order, whatever commits when."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, update

from statemachine import Counters
from tests.support.sending import OPERATIONS, announcement_body, message, process
from worker.api import feed as feeds
from worker.api import frames
from worker.api.feed import Feed
from worker.api.follower import Follower
from worker.api.recent import Recent, RecentChanges
from worker.api.stream import Stream
from worker.model.changes import Change, ChangeType, operation_changed
from worker.store import change_log, change_page, outbox
from worker.store.change_log import LoggedChange
from worker.store.change_page import Missed, missed_after, number_all, read_page
from worker.store.database import Database
from worker.store.tables import change_cursors, changes

FIRST, SECOND = OPERATIONS
PATIENCE = 30


def change(sequence: int, operation_id: UUID = FIRST, operation_type: str = "CONVERGE") -> Change:
    return operation_changed(
        operation_id, operation_type, sequence, "RESOLVED", "RESOLVED", Counters(), datetime.now(UTC)
    )


async def tell(database: Database, *told: Change) -> None:
    async with database.write() as connection:
        await outbox.tell(connection, told)


async def logged(database: Database, *told: Change) -> None:
    await tell(database, *told)
    await number_all(database)


@asynccontextmanager
async def running(database: Database) -> AsyncIterator[Feed]:
    feed = Feed(database, database)
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        feed.stop()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def ids(chunk: bytes) -> list[int]:
    """The ids of the events of a chunk."""
    events = chunk.decode().split("\n\n")
    return [
        int(line[4:]) for event in events if "data: " in event for line in event.split("\n") if line[:3] == "id:"
    ]


async def take(following: AsyncIterator[bytes], number: int) -> list[int]:
    """The ids of the next events, at least so many."""
    found: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < number:
            found += ids(await anext(following))
    return found


async def follow(feed: Feed, follower: Follower, first: bytes = b"") -> AsyncGenerator[bytes, None]:
    assert feed.enter(follower)
    try:
        async with aclosing(Stream(feed, follower).events(first)) as events:
            async for chunk in events:
                yield chunk
    finally:
        feed.depart(follower)


async def pages(database: Database, after: int, limit: int, size: int, *selected: object) -> list[LoggedChange]:
    found: list[LoggedChange] = []
    while True:
        async with database.read() as connection:
            page = await read_page(connection, after, limit, size, *selected)  # type: ignore[arg-type]
        assert len(page.changes) <= limit
        assert sum(len(each.payload) for each in page.changes[:-1]) < size
        found += page.changes
        after = page.end
        if page.is_last:
            return found


async def test_pages_of_any_size_from_any_position_have_everything_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [change(number, (FIRST, SECOND)[number % 3 == 0]) for number in range(1, 31)]
    await logged(database, *told)
    everything = await pages(database, 0, 1_000, 10**9)
    assert [each.id for each in everything] == [each.id for each in told]
    assert [each.position for each in everything] == [*range(1, 31)]
    for after, limit, size in (
        (0, 1, 10**9),
        (0, 7, 10**9),
        (3, 10, 700),
        (29, 5, 1),
        (30, 5, 1),
        (0, 1_000, 2_000),
    ):
        assert await pages(database, after, limit, size) == everything[after:]
        of_first = [each for each in everything[after:] if each.aggregateid == str(FIRST)]
        assert await pages(database, after, limit, size, FIRST) == of_first
    monkeypatch.setattr(change_page, "WINDOW", 4)
    assert await pages(database, 0, 1_000, 10**9) == everything
    assert await pages(database, 0, 1_000, 10**9, None, [ChangeType.OPERATION_CHANGED]) == everything
    assert await pages(database, 0, 1_000, 10**9, None, [ChangeType.OPERATION_ABORTED]) == []


async def test_commits_that_become_visible_in_another_order_are_followed_without_a_gap(
    postgresql_database: Database,
) -> None:
    database = postgresql_database
    async with running(database) as feed, aclosing(follow(feed, Follower())) as following:
        assert await anext(following) == frames.RETRY
        first, second, third = change(1, FIRST), change(1, SECOND), change(2, SECOND)
        async with database.write() as early:
            await outbox.tell(early, [first])  # has the smallest number of the outbox, and is not committed
            await tell(database, second)
            assert await take(following, 1) == [1]
            await tell(database, third)
            assert await take(following, 1) == [2]
        assert await take(following, 1) == [3]
        logged_ids = [each.id for each in await pages(database, 0, 10, 10**6)]
        assert logged_ids == [second.id, third.id, first.id]


async def test_writers_side_by_side_are_followed_in_one_order_from_every_position(database: Database) -> None:
    writers, each_tells = 4, 15

    async def write(operation_id: UUID) -> None:
        for sequence in range(1, each_tells + 1):
            await tell(database, change(sequence, operation_id))
            await asyncio.sleep(0.001)

    async with running(database) as feed:
        live = Follower()
        async with aclosing(follow(feed, live)) as following:
            writing = [asyncio.create_task(write(uuid4())) for _ in range(writers)]
            assert await take(following, writers * each_tells) == [*range(1, writers * each_tells + 1)]
            await asyncio.gather(*writing)
        sequences: dict[str, list[int | None]] = {}
        for found in await pages(database, 0, 1_000, 10**9):
            sequences.setdefault(found.aggregateid, []).append(found.sequence)
        assert [*sequences.values()] == [[*range(1, each_tells + 1)]] * writers
        for position in (1, 17, writers * each_tells - 1):
            follower = Follower()
            follower.position = position
            async with aclosing(follow(feed, follower)) as following:
                rest = [*range(position + 1, writers * each_tells + 1)]
                assert await take(following, len(rest)) == rest


async def test_many_followers_read_and_encode_each_change_once(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, encoded = sqlite_database, list[int]()
    of_change = frames.of_change

    def counting(found: LoggedChange) -> bytes:
        encoded.append(found.position)
        return of_change(found)

    async def followed(feed: Feed, follower: Follower, number: int) -> Sequence[int]:
        async with aclosing(follow(feed, follower)) as following:
            return await take(following, number)

    monkeypatch.setattr(frames, "of_change", counting)
    async with running(database) as feed:
        followers = [Follower(operation_id) for operation_id in (None, FIRST, SECOND) for _ in range(200)]
        tasks = [
            asyncio.create_task(followed(feed, each, 2 if each.operation_id is None else 1)) for each in followers
        ]
        async with asyncio.timeout(PATIENCE):
            while not all(each.is_live for each in followers):  # noqa: ASYNC110  # no event comes
                await asyncio.sleep(0.01)
        assert feed.count == len(followers)
        await tell(database, change(1, FIRST), change(1, SECOND))
        found = await asyncio.gather(*tasks)
        assert feed.count == 0
    assert found == [[1, 2]] * 200 + [[1]] * 200 + [[2]] * 200
    assert encoded == [1, 2]


async def test_a_slow_follower_holds_no_memory_and_misses_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "HELD", 5_000)
    async with running(database) as feed:
        slow, quick = Follower(), Follower()
        async with (
            aclosing(follow(feed, slow)) as slowly,
            aclosing(follow(feed, quick)) as quickly,
        ):
            for number in range(1, 4):  # the first page, then live
                await tell(database, change(number))
                assert await take(quickly, 1) == [number]
                assert await take(slowly, 1) == [number]
            assert slow.is_live
            for number in range(4, 60):
                await tell(database, change(number))
            assert await take(quickly, 56) == [*range(4, 60)]
            assert feed.recent.forgotten >= 4  # which the slow one has not been sent
            assert await take(slowly, 56) == [*range(4, 60)]
            await tell(database, change(60))
            assert await take(quickly, 1) == await take(slowly, 1) == [60]


async def test_who_comes_back_while_others_follow_is_sent_what_is_held_without_reading_the_log(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = sqlite_database
    live = Follower(SECOND)
    async with running(database) as feed, aclosing(follow(feed, live)) as other:
        waiting = asyncio.ensure_future(take(other, 1))
        async with asyncio.timeout(PATIENCE):
            while not live.is_live:  # noqa: ASYNC110  # no event comes
                await asyncio.sleep(0.01)
        await tell(database, change(1), change(2), change(3), change(1, SECOND))
        assert await waiting == [4]
        monkeypatch.setattr("worker.api.stream.read_page", None)
        for operation_id, position, rest in ((None, 1, [2, 3, 4]), (FIRST, 2, [3]), (SECOND, 0, [4])):
            follower = Follower(operation_id)
            follower.position = position
            async with aclosing(follow(feed, follower)) as following:
                assert await take(following, len(rest)) == rest


async def test_a_quiet_stream_says_how_far_it_is(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.api.stream.HEARTBEAT", 0.1)
    await logged(database, change(1, SECOND))
    async with running(database) as feed, aclosing(follow(feed, Follower(FIRST))) as following:
        assert await anext(following) == frames.RETRY
        assert await anext(following) == frames.alive(1)
        await tell(database, change(2, SECOND))
        async with asyncio.timeout(PATIENCE):
            while await anext(following) != frames.alive(2):
                pass
        await tell(database, change(1, FIRST))
        assert await take(following, 1) == [3]


def test_recent_changes_are_held_up_to_a_size_and_found_from_any_position() -> None:
    recent = RecentChanges(100)
    recent.clear(7)
    for position in range(8, 30):
        of = "ab"[position % 2]
        recent.add(Recent(position, of, ChangeType.OPERATION_CHANGED, None, b"x" * 10))
    assert recent.forgotten == 19
    assert [each.position for each in recent.since(20, None)] == [*range(20, 30)]
    assert [each.position for each in recent.since(23, "b")] == [23, 25, 27, 29]
    assert [each.position for each in recent.since(30, "a")] == []
    assert [each.position for each in recent.since(20, "c")] == []
    recent.add(Recent(30, "a", ChangeType.OPERATION_CHANGED, None, b"x" * 1_000))
    assert [each.position for each in recent.since(20, "a")] == [30]


async def test_a_state_is_sent_first_and_no_change_that_it_has_already(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it commits between the look at the log's end and the reading of the state."""
    await process(database, [[message(announcement_body(FIRST, []), "operation.announced")]])

    async def overtaken(_: Feed) -> None:
        await number_all(database)
        again = announcement_body(FIRST, [], reason="more")
        await process(database, [[message(again, "operation.announced", str(uuid4()))]])

    monkeypatch.setattr(Feed, "number", overtaken)
    async with running(database) as feed:
        beginning = Stream(feed, follower := Follower(FIRST))
        first = await beginning.begin()
        monkeypatch.undo()
        assert b'"sequence":2}' in first
        async with aclosing(beginning.events(first)) as following:
            assert await anext(following) == frames.RETRY + first
            await process(database, [[message(announcement_body(FIRST, []), "operation.announced", "x")]])
            assert await take(following, 1) == [3]
            assert follower.known == 2


async def test_followers_whose_log_is_lost_are_told_and_go_on(database: Database) -> None:
    await process(database, [[message(announcement_body(FIRST, []), "operation.announced")]])
    await logged(database, *(change(number, SECOND) for number in range(1, 9)))
    async with running(database) as feed:
        everything, one = Follower(), Follower(FIRST)
        everything.position = one.position = 9
        async with (
            aclosing(follow(feed, everything)) as all_,
            aclosing(follow(feed, one)) as of_one,
        ):
            await anext(all_), await anext(of_one)
            waiting = [asyncio.ensure_future(anext(each)) for each in (all_, of_one)]
            async with asyncio.timeout(PATIENCE):
                while not (everything.is_live and one.is_live):  # noqa: ASYNC110  # no event comes
                    await asyncio.sleep(0.01)
            async with database.write() as connection:  # as a database that was restored
                await connection.execute(delete(changes).where(changes.c.position > 5))
                await connection.execute(update(change_cursors).values(position=5))
            told = [chunk.decode() for chunk in await asyncio.gather(*waiting)]
            assert told[0].startswith("id: 5\nevent: reset\n")
            assert '"reason":"beyond_end"' in told[0]
            assert "event: reset" in told[1]
            assert "event: operation\n" in told[1]
            await tell(database, change(6, SECOND), change(9, FIRST))
            assert await take(all_, 2) == [6, 7]
            assert await take(of_one, 1) == [7]


async def test_what_is_removed_is_told_from_what_is_kept(database: Database) -> None:
    await logged(database, *(change(number) for number in range(1, 11)))
    async with database.write() as connection:
        # Younger than the one after it, as that of a transaction that took long to commit is not.
        young = update(changes).where(changes.c.position == 4)
        await connection.execute(update(changes).values(recorded_at=0))
        await connection.execute(young.values(recorded_at=2**50))
    async with database.write() as connection:
        assert await change_log.remove_read(connection, 1_000, 100, 2) == 2
        assert await change_log.remove_read(connection, 1_000, 100, 100) == 1
        assert await change_log.remove_read(connection, 1_000, 100, 100) == 0
        log = await change_log.extent(connection)
    assert (log.first, log.last) == (4, 10)
    assert [missed_after(position, log) for position in (2, 3, 10, 11)] == [
        Missed.REMOVED,
        None,
        None,
        Missed.BEYOND_END,
    ]
    async with database.write() as connection:
        assert await change_log.remove_read(connection, 2**51, 3, 100) == 4
        assert await change_log.remove_read(connection, 0, 0, 100) == 3
        log = await change_log.extent(connection)
    assert missed_after(10, log) is None
    assert missed_after(9, log) is Missed.REMOVED


async def test_a_type_of_a_newer_version_stops_no_reader(database: Database) -> None:
    await logged(database, change(1))
    async with database.write() as connection:
        await connection.execute(update(changes).values(type="operation.renamed"))
    async with database.read() as connection:
        [found] = await change_log.read_after(connection, 0, 10)
    assert b"event: operation.renamed\n" in frames.of_change(found)


async def test_those_who_come_at_once_are_not_more_than_there_is_room_for(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MAX_FOLLOWERS", 3)
    feed = Feed(sqlite_database, sqlite_database)
    followers = [Follower() for _ in range(5)]
    assert [feed.enter(each) for each in followers] == [True] * 3 + [False] * 2
    feed.depart(followers[0])
    assert feed.enter(followers[4])
