"""What workers have said before the database's clock was set back, and dead ones for ever, counts no more."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text

from tests.support.elapsing import elapse
from worker.model.sharing import Peer
from worker.model.watermark import Own, Phase, Progress, processed_until
from worker.store.database import Database
from worker.store.progress import ProgressStore
from worker.store.tables import consumers, workers
from worker.store.workers import Peers

HOUR = 3_600


async def say(store: ProgressStore, worker: UUID, known: int = 0) -> tuple[int, Sequence[Progress]]:
    """Have a worker say that everything was processed by a moment; returns the clock and the rows."""
    own = Own("q", Phase.CONSUMING, asyncio.get_running_loop().time(), known)
    answer = await store.renew(worker, [own])
    assert answer is not None
    return answer


async def number_of_rows(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(consumers))).scalar_one()


@pytest.mark.parametrize("has_left", [False, True])
async def test_how_far_a_dead_worker_had_come_does_not_count(database: Database, has_left: bool) -> None:
    store, dead, alive = ProgressStore(database, "p"), uuid4(), uuid4()
    clock, _ = await say(store, dead)
    await say(store, dead, clock)
    await say(ProgressStore(database, "other"), uuid4())
    if has_left:
        await store.leave(dead)
    await elapse(database, -HOUR)  # as if the clock had been set back

    _, rows = await say(store, alive)

    assert [row.worker_id for row in rows] == [alive]
    await elapse(database, HOUR)  # it has caught up
    clock, rows = await say(store, alive)
    assert [row.worker_id for row in rows] == [alive]
    assert processed_until(rows, ["q"], clock) is None
    assert await number_of_rows(database) == 2, "those of other workers are theirs"


async def test_a_worker_that_lives_says_nothing_of_a_time_to_come(database: Database) -> None:
    store, worker = ProgressStore(database, "p"), uuid4()
    clock, _ = await say(store, worker)
    clock, [row] = await say(store, worker, clock + 1_000 * HOUR)
    assert row.processed_until == 0
    assert row.seen_at <= clock


async def test_what_two_workers_say_at_a_time_is_believed(database: Database) -> None:
    """One reads the clock, and sees what another one has said since."""
    store, two = ProgressStore(database, "p"), [uuid4(), uuid4()]
    for _ in range(100):
        for _, rows in await asyncio.gather(*(say(store, each) for each in two)):
            assert rows
    assert len((await say(store, two[0]))[1]) == 2


async def test_a_dead_worker_has_no_share_of_the_partitions(database: Database) -> None:
    peers, dead, alive = Peers(database, "p"), Peer(uuid4(), 4), Peer(uuid4(), 4)
    assert await peers.renew(dead, is_sharing=True) == [dead]
    async with database.write() as connection:
        later = "datetime(seen_at, '+1 hour')" if database.is_sqlite else "seen_at + interval '1 hour'"
        await connection.execute(text(f"UPDATE {workers.name} SET seen_at = {later}"))  # noqa: S608
    assert await peers.renew(alive, is_sharing=True) == [alive]
