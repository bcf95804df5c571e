"""From publishing to being visible in the database, at offered rates; of the bare consumer, to its callback.

Publisher and observer are one process with one clock. A report counts from the moment at which it is due, so that
a slow publisher makes nothing look better. Some are watched, fifty a second at most: one connection asks for those
that are due, by their ids, whenever deviceops tells of a commit, and every two milliseconds, which is the
resolution for a consumer that tells of none. Where a consumer cannot keep up with the rate, the figures are null.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

import asyncpg

from tests.benchmarks.consuming import other, running, told
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Scene, Stage
from tests.benchmarks.traffic import Traffic
from worker.model.messages import ANNOUNCEMENT, Incoming, Key, Message
from worker.model.parsing import parse
from worker.simulate import Disorder
from worker.store.bulk import CHANGES_CHANNEL

RESOLUTION = 0.002
WATCHED = 50
"""Reports that are watched in a second, at most."""
PATIENCE = 1
"""Seconds after the last report within which all have to be there: who takes longer does not keep up."""
CONCURRENCY = 8
"""Of the usual consumer."""

Percentiles = Mapping[str, float]
"""p50 and p99 in milliseconds, and of how many reports."""
Round = dict[str, dict[str, Percentiles | None]]
"""By consumer and offered rate; None where a consumer did not keep up."""

OPERATIONS = "SELECT count(*) FROM operations"
VISIBLE = """
SELECT device_operation_id, report_id
FROM unnest($1::uuid[], $2::text[]) AS watched (device_operation_id, report_id)
JOIN device_operation_activity USING (device_operation_id, report_id)
"""


@dataclass(frozen=True, slots=True)
class Offered:
    """Messages that are due at a steady rate, beginning with announcements, which are due before."""

    announcements: Sequence[Message]
    reports: Sequence[Message]
    rate: int

    @classmethod
    def at(cls, rate: int, seconds: float, seed: int) -> "Offered":
        """So many reports a second, all of them good, as a bad one is never visible in the history."""
        wanted = max(int(rate * seconds), 20)
        messages = Traffic.of(2 * wanted, seed, Disorder(), unknown=0).messages
        reports = [message for message in messages if message.type != ANNOUNCEMENT]
        return cls([message for message in messages if message.type == ANNOUNCEMENT], reports[:wanted], rate)

    def watched(self) -> Iterator[tuple[int, Key]]:
        """Which of the reports are watched, each with its identity."""
        for index in range(0, len(self.reports), max(1, self.rate // WATCHED)):
            [item] = parse(self.reports[index])
            assert isinstance(item, Incoming)
            yield index, item.key


async def latency(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """p50 and p99 in milliseconds by consumer and offered rate, and the ratios of p99 to the bare consumer's.

    Medians of the rounds in which the consumer kept up, or null if those are not most of them.
    """
    consumers = {"a": _of_bare, "b": _of_usual, "c": _of_deviceops}
    steps.begin(sizes.rounds * len(sizes.rates) * len(consumers))
    seeds = count(100)
    rounds: list[Round] = []
    for number in range(1, sizes.rounds + 1):
        found: Round = {name: {} for name in consumers}
        for rate in sizes.rates:
            for name, measure in consumers.items():
                steps.next(f"round {number}: ({name}) at {rate:,} reports a second")
                offered = Offered.at(rate, sizes.seconds, next(seeds))
                with no_collector():
                    latencies = await measure(stage, offered)
                found[name][str(rate)] = percentiles(latencies)
        rounds.append(found)
    return {
        "milliseconds": {
            name: {str(rate): medians([each[name][str(rate)] for each in rounds]) for rate in sizes.rates}
            for name in consumers
        },
        "ratios": {f"c/a p99 at {rate}": each for rate in sizes.rates if (each := ratio(rounds, str(rate)))},
        "resolution_ms": RESOLUTION * 1_000,
        "rounds": rounds,
    }


def percentiles(latencies: Sequence[float] | None) -> Percentiles | None:
    """Of latencies, if there are any."""
    if not latencies:
        return None
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return {"p50": cuts[49] * 1_000, "p99": cuts[98] * 1_000, "watched": len(latencies)}


def medians(found: Sequence[Percentiles | None]) -> Percentiles | None:
    """Of each figure."""
    kept_up = [each for each in found if each is not None]
    if 2 * len(kept_up) <= len(found):
        return None
    return {name: statistics.median(each[name] for each in kept_up) for name in kept_up[0]}


def ratio(rounds: Sequence[Round], rate: str) -> float | None:
    """The median of the rounds' ratios: what slows a whole round down, slows both."""
    pairs = [(each["c"][rate], each["a"][rate]) for each in rounds]
    ratios = [ours["p99"] / bare["p99"] for ours, bare in pairs if ours and bare]
    return statistics.median(ratios) if 2 * len(ratios) > len(rounds) else None


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep pauses of up to 80 ms, in which the collector looks at all that is to be sent, out of the latencies."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _of_bare(stage: Stage, offered: Offered) -> Sequence[float] | None:
    async with stage.scene("sqlite") as scene:
        total = len(offered.announcements) + len(offered.reports)
        async with other(scene, "bare", total, "2000") as process:
            await stage.broker.consumed_by(scene.topology, 1)
            for message in offered.announcements:
                await stage.broker.send(scene.topology, message)
            await publish(stage, scene, offered, _start())
            latencies: list[float] = (await told(process))["latencies"]
    return latencies if latencies[-1] < PATIENCE else None


async def _of_usual(stage: Stage, offered: Offered) -> Sequence[float] | None:
    async with stage.scene() as scene:
        total = len(offered.announcements) + len(offered.reports)
        async with other(scene, "usual", total, str(CONCURRENCY), scene.database_url):
            return await _until_visible(stage, scene, offered)


async def _of_deviceops(stage: Stage, offered: Offered) -> Sequence[float] | None:
    async with stage.scene() as scene, running(scene):
        return await _until_visible(stage, scene, offered)


async def _until_visible(stage: Stage, scene: Scene, offered: Offered) -> Sequence[float] | None:
    await stage.broker.consumed_by(scene.topology, 1)
    connection = await asyncpg.connect(scene.postgresql_url)
    try:
        await announce(stage, scene, connection, offered)
        start = _start()
        publishing = asyncio.create_task(publish(stage, scene, offered, start))
        try:
            found = await watch(connection, offered, start, PATIENCE)
            return None if found is None else [took for _, took in found]
        finally:
            publishing.cancel()
            await asyncio.wait([publishing])
    finally:
        await connection.close()


async def announce(stage: Stage, scene: Scene, connection: asyncpg.Connection, offered: Offered) -> None:
    """Send the announcements, and return once all of their operations are there."""
    wanted = await connection.fetchval(OPERATIONS) + len(offered.announcements)
    for message in offered.announcements:
        await stage.broker.send(scene.topology, message)
    async with asyncio.timeout(60):
        while await connection.fetchval(OPERATIONS) < wanted:  # noqa: ASYNC110  # no event comes
            await asyncio.sleep(0.05)


async def watch(
    connection: asyncpg.Connection, offered: Offered, start: float, patience: float
) -> Sequence[tuple[float, float]] | None:
    """When each watched report was due, in seconds after `start`, and how long it took.

    None if they are not all visible `patience` seconds after the last one was due.
    """
    waiting: dict[tuple[UUID, str], float] = {}
    to_come = [(start + index / offered.rate, key) for index, key in offered.watched()]
    to_come.reverse()
    found: list[tuple[float, float]] = []
    deadline = start + len(offered.reports) / offered.rate + patience
    visible = await connection.prepare(VISIBLE)
    committed = asyncio.Event()
    await connection.add_listener(CHANGES_CHANNEL, lambda *_: committed.set())
    while waiting or to_come:
        now = time.monotonic()
        if now > deadline:
            return None
        while to_come and to_come[-1][0] <= now:
            due, key = to_come.pop()
            waiting[key] = due
        committed.clear()
        if waiting:
            rows = await visible.fetch([id_ for id_, _ in waiting], [report_id for _, report_id in waiting])
            now = time.monotonic()
            since = [waiting.pop((row[0], row[1])) for row in rows]
            found += [(due - start, now - due) for due in since]
        with suppress(TimeoutError):
            await asyncio.wait_for(committed.wait(), RESOLUTION)
    return found


def _start() -> float:
    """When the first report is due: soon."""
    return time.monotonic() + 0.1


async def publish(stage: Stage, scene: Scene, offered: Offered, start: float) -> None:
    """Send each report when it is due, the first one at `start`."""
    for index, message in enumerate(offered.reports):
        due = start + index / offered.rate
        if (pause := due - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        await stage.broker.send(scene.topology, message, sent=due)
