"""While a PostgreSQL takes its time, reports wait with the broker: a worker holds a few, and not for ever."""

import asyncio
import json
from random import Random

import httpx

from tests.faults.fleet import Fleet
from tests.faults.outages import assert_clean, assert_told_once, is_paused, said, session
from tests.faults.scene import NewScene
from tests.faults.trials import Trials
from tests.faults.workers import Worker
from tests.support.services import PrivatePostgreSQL

LOST = "broker connection lost, reconnecting"
BATCH = 20
PREFETCH = 2 * BATCH
HEAVY = 20_000
"""Bytes of a report that has much to say which nobody asked for."""
MANY = 400
"""Devices whose reports, 40 MB of them, come meanwhile."""
A_FEW = 10
"""How often a delivered report may be in memory: a fifth of those that come."""


async def test_slow_database_holds_reports_back(
    trials: Trials, new_scene: NewScene, amqp_url: str, fragile_database: str
) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, batch_size=BATCH)

    async def hold_up(random: Random) -> None:
        async with session(fragile_database) as own, own.transaction():
            before = _memory(worker)
            await own.execute("LOCK TABLE operations IN EXCLUSIVE MODE")
            many = Fleet(random, devices=MANY)
            many.reports = {id_: _heavier(body) for id_, body in many.reports.items()}
            await ledger.publish(many)
            messages, consumers = await ledger.waiting()
            assert messages >= len(many.reports) - PREFETCH
            assert consumers == 1
            assert _memory(worker) - before < PREFETCH * HEAVY * A_FEW
            assert worker.probe("livez")[0] == httpx.codes.OK
            assert worker.probe("readyz")[0] == httpx.codes.OK

    await trials.endure("PostgreSQL held up by a lock", hold_up, ledger, worker)
    assert_clean(worker.log)


def _heavier(body: bytes) -> bytes:
    return json.dumps({**json.loads(body), "remarks": "x" * HEAVY}).encode()


def _memory(worker: Worker) -> float:
    """Bytes that the worker has of the machine's memory."""
    _, text = worker.probe("metrics")
    return float(next(line for line in text.splitlines() if line.startswith("process_resident_memory")).split()[1])


async def test_messages_held_for_too_long_go_back_until_the_database_answers(
    trials: Trials, new_scene: NewScene, amqp_url: str, fragile_database: str, postgresql: PrivatePostgreSQL
) -> None:
    worker, ledger = await new_scene(amqp_url, fragile_database, batch_size=BATCH, hold_timeout=2)

    async def be_away(random: Random) -> None:
        lost = len(said(worker.log, LOST))
        await asyncio.to_thread(postgresql.stop)
        await is_paused(worker, ledger, random)
        await worker.until(lambda: len(said(worker.log, LOST)) > lost, "giving back")
        async with asyncio.timeout(10):
            while (await ledger.waiting())[1]:
                pass
        for _ in range(20):  # somebody who would consume now gets messages that he cannot settle
            messages, consumers = await ledger.waiting()
            assert messages > 0
            assert consumers == 0
            await asyncio.sleep(0.05)
        await asyncio.to_thread(postgresql.start)

    await trials.endure("PostgreSQL away until messages went back", be_away, ledger, worker)
    assert_told_once(worker.log, trials.tries)
    assert len(said(worker.log, LOST)) == trials.tries
    assert all("were held for 2 s" in line["error"] for line in said(worker.log, LOST))
