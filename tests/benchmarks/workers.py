"""What several workers do: with one queue, with partitions, and how long their transactions wait for locks.

The clock runs from when all are there and share the partitions, until most of the backlog is settled: at the end
some partitions are empty before others.
"""

import asyncio
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
from sqlalchemy import make_url

from tests.benchmarks import broker
from tests.benchmarks.broker import Key
from tests.benchmarks.checking import check_database, check_tally
from tests.benchmarks.consuming import PATIENCE, Workers, running
from tests.benchmarks.scaling import Times, rate
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Scene, Stage
from tests.benchmarks.traffic import Traffic
from tests.support.services import PrivateRabbitMQ
from worker.amqp.publisher import routing_key
from worker.amqp.session import AT_ONCE
from worker.model.messages import Message
from worker.processing.batches import process_messages
from worker.store.database import Database

WORKERS = (1, 2, 3, 4)
PARTITIONS = (1, 8)
MODELLED = (2, 4, 8, 16, 32)
"""Workers, where there are processors for all; the partitions are then as many as pay."""
BATCH = 1_000
"""Reports, as `batch_size` is by default."""
BACKLOG = 6
"""Times the reports of other benchmarks: the first seconds do not count."""
END = 0.7
"""Of the backlog, when the clock stops."""
BENCHMARK = "benchmark"
"""What measures, which takes its part of the processors."""
LOOKS = "looks"
"""How often it was looked at them."""
LOOK = 0.05
"""Seconds between two looks at what transactions and workers do."""
WAITING = ("for the batch lock", "for rows", "for the worker")
DOING = """
    SELECT CASE
        WHEN wait_event_type = 'Lock' AND wait_event = 'advisory' THEN 'for the batch lock'
        WHEN wait_event_type = 'Lock' THEN 'for rows'
        WHEN state = 'idle in transaction' THEN 'for the worker'
        ELSE ''
    END FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'deviceops' AND xact_start IS NOT NULL
"""
"""What each transaction waits for, empty if it is at work in the database."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one run showed."""

    rate: float
    """Reports a second."""
    waiting: Mapping[str, float]
    """The shares of transactions' time that are spent so."""
    transactions: float
    """How many are open at a time."""
    microseconds: Mapping[str, float]
    """Processor time of a report, of the workers, the database, the broker, and what measures them."""


async def workers(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """Reports per second by workers and partitions, ratios to one worker, waits, and cost."""
    traffic = Traffic.of(BACKLOG * sizes.reports, seed=1)
    cases = [(number, partitions) for partitions in PARTITIONS for number in WORKERS]
    steps.begin(sizes.rounds * len(cases))
    rounds: list[Mapping[str, Found]] = []
    with PrivateRabbitMQ() as server:  # it has the plugin for partitions
        async with broker.connected(server.url) as connection:
            own = replace(stage, amqp_url=server.url, broker=connection)
            for number in range(sizes.rounds):
                found = {}
                for case in cases[:: -1 if number % 2 else 1]:
                    steps.next(f"round {number + 1}: {_name(*case)}")
                    found[_name(*case)] = await measure(own, traffic, *case)
                rounds.append(found)

    def medians(group: Callable[[Found], Mapping[str, float]]) -> Mapping[str, Mapping[str, float]]:
        return {
            name: {what: statistics.median(group(each[name])[what] for each in rounds) for what in group(first)}
            for name, first in ((_name(*case), rounds[0][_name(*case)]) for case in cases)
        }

    return {
        "rates": {name: found["rate"] for name, found in medians(lambda each: {"rate": each.rate}).items()},
        "ratios": {
            f"{_name(number, partitions)} / {_name(1, partitions)}": statistics.median(
                each[_name(number, partitions)].rate / each[_name(1, partitions)].rate for each in rounds
            )
            for number, partitions in cases
            if number > 1
        },
        "transactions_open": medians(lambda each: {"transactions_open": each.transactions}),
        "share_of_transactions": medians(lambda each: each.waiting),
        "microseconds_of_a_report": medians(lambda each: each.microseconds),
        **_modelled(rounds, cases),
        "rounds": [{_name(*case): each[_name(*case)].rate for case in cases} for each in rounds],
    }


def _modelled(rounds: Sequence[Mapping[str, Found]], cases: Sequence[tuple[int, int]]) -> Mapping[str, Any]:
    """What the model says of the same cases, and of machines with processors for all.

    How a batch's time is divided comes from one worker at one queue; processor times from each case itself, as
    they grow with the load of a machine.
    """

    def median(case: tuple[int, int], of: Callable[[Found], float]) -> float:
        return statistics.median(of(each[_name(*case)]) for each in rounds)

    def seconds(case: tuple[int, int], program: str) -> float:
        return BATCH / 1e6 * median(case, lambda found: found.microseconds[program])

    alone = cases[0]
    transaction = BATCH / median(alone, lambda found: found.rate) * median(alone, lambda found: found.transactions)
    inside = transaction * median(alone, lambda found: found.waiting["for the worker"])
    share = inside / max(seconds(alone, "workers"), inside, 1e-9)
    waiting = max(transaction - inside - seconds(alone, "PostgreSQL"), 0)

    def times(case: tuple[int, int]) -> Times:
        _, partitions = case
        return Times(
            outside=seconds(case, "workers") * (1 - share),
            inside=seconds(case, "workers") * share,
            database=seconds(case, "PostgreSQL"),
            waiting=waiting,
            broker=seconds(case, "RabbitMQ") + seconds(case, BENCHMARK),
            reports=BATCH,
            lanes=1 if partitions == 1 else AT_ONCE,
            has_lock=partitions == 1,
        )

    modelled = {case: rate(times(case), case[0], os.cpu_count() or 1) for case in cases}
    return {
        "model_of_this_machine": {
            _name(*case): {"rate": found, "model / measured": found / median(case, lambda each: each.rate)}
            for case, found in modelled.items()
        },
        "model_with_processors_for_all": {
            f"{number} workers": {
                _queues(partitions): rate(times((1, partitions)), number, 4 * number) for partitions in PARTITIONS
            }
            for number in MODELLED
        },
    }


def _name(workers: int, partitions: int) -> str:
    return f"{workers} worker{'s' * (workers > 1)}, {_queues(partitions)}"


def _queues(partitions: int) -> str:
    return "one queue" if partitions == 1 else f"{partitions} partitions"


async def measure(
    stage: Stage,
    traffic: Traffic,
    number: int,
    partitions: int,
    *,
    earlier: Sequence[Message] = (),
    key: Key = routing_key,
) -> Found:
    """Measure one case; `earlier` messages are processed before the others are published."""
    total = traffic.expected.received
    async with stage.scene(partitions=partitions) as scene:
        await _process(scene, earlier)
        await stage.broker.fill(scene.topology, traffic.messages, key)
        connection = await asyncpg.connect(scene.postgresql_url)
        try:
            async with running(scene, number) as running_ones:
                began = await stage.broker.consumed_by(scene.topology, 1)
                await _shared(running_ones, scene)
                first, at_first = await running_ones.received(), time.monotonic()
                before = await _spent(running_ones)
                looking = asyncio.create_task(_look(connection))
                last = await running_ones.have_received(END * total)
                at_last = time.monotonic()
                after = await _spent(running_ones)
                looking.cancel()
                seen = await looking
                await running_ones.have_settled(total, began)
                tallies = await running_ones.stop()
        finally:
            await connection.close()
        check_tally(tallies, traffic.expected)
        await check_database(scene.database_url, traffic.expected)
    settled = last - first or last  # of a tiny backlog nothing may be left
    open_ = max(seen.total() - seen[LOOKS], 1)
    return Found(
        rate=settled / (at_last - at_first),
        waiting={what: seen[what] / open_ for what in WAITING},
        transactions=open_ / max(seen[LOOKS], 1),
        microseconds={name: (after[name] - before[name]) / settled * 1e6 for name in before},
    )


async def _spent(running_ones: Workers) -> Mapping[str, float]:
    """Seconds of the processors that each program has taken so far."""
    return {**await running_ones.processor_seconds(), BENCHMARK: time.process_time()}


async def _process(scene: Scene, messages: Sequence[Message]) -> None:
    database = Database(make_url(scene.database_url))
    try:
        await process_messages(database, messages)
    finally:
        await database.close()


async def _shared(running_ones: Workers, scene: Scene) -> None:
    """Return once each partition has one worker, and all as many; without partitions, once all consume."""
    partitions = scene.topology.partitions
    deadline = time.monotonic() + PATIENCE
    while True:
        held = await running_ones.metrics("deviceops_queues_held")
        total = partitions if partitions > 1 else running_ones.count
        if len(held) == running_ones.count and sum(held) == total and max(held) - min(held) <= 1:
            return
        assert time.monotonic() < deadline, held
        await asyncio.sleep(LOOK)


async def _look(connection: asyncpg.Connection) -> Counter[str]:
    """Count what transactions do, until cancelled."""
    seen: Counter[str] = Counter()
    try:
        while True:
            seen[LOOKS] += 1
            seen.update(waiting for [waiting] in await connection.fetch(DOING))
            await asyncio.sleep(LOOK)
    except asyncio.CancelledError:
        return seen
