"""Reports a second, of deviceops and of the consumers beside it: rounds in turn, medians, ratios of one run."""

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.checking import check_database, check_tally
from tests.benchmarks.consuming import rate_of_bare, rate_of_deviceops, rate_of_usual
from tests.benchmarks.sizes import Sizes, Steps
from tests.benchmarks.stage import Stage
from tests.benchmarks.traffic import Traffic
from tests.support.command import Deviceops

CONSUMERS = {
    "a": "aio-pika, only acknowledging",
    "b": "FastStream, SQLAlchemy, one transaction a message",
    "c": "deviceops, PostgreSQL",
    "d": "deviceops, SQLite",
    "e": "deviceops, PostgreSQL, bulk messages of 100",
    "f": "deviceops ingest from a file, PostgreSQL",
    "g": "deviceops, PostgreSQL, two workers",
}
RATIOS = ("c/b", "c/a", "d/a", "e/a", "g/c")
SHARE = 15
"""The usual consumer gets one report where others get so many: it takes as long for that."""
LEAST = 400
"""Reports in which every kind of bad ones occurs."""


async def throughput(stage: Stage, sizes: Sizes, steps: Steps) -> Mapping[str, Any]:
    """The rates of all consumers, the ratios of the medians, and the rounds."""
    traffic = Traffic.of(sizes.reports, seed=1)
    bulk = traffic.in_bulk()
    little = Traffic.of(max(sizes.reports // SHARE, LEAST), seed=5)
    steps.begin(len(sizes.prefetches) + len(sizes.concurrencies) + sizes.rounds * len(CONSUMERS))
    prefetch, prefetches = await _best(
        sizes.prefetches, lambda n: rate_of_bare(stage, traffic, n), steps, "(a) with prefetch"
    )
    concurrency, concurrencies = await _best(
        sizes.concurrencies, lambda n: rate_of_usual(stage, little, n), steps, "(b) with concurrency"
    )
    runs: dict[str, Callable[[], Awaitable[float]]] = {
        "a": lambda: rate_of_bare(stage, traffic, prefetch),
        "b": lambda: rate_of_usual(stage, little, concurrency),
        "c": lambda: rate_of_deviceops(stage, traffic),
        "d": lambda: rate_of_deviceops(stage, traffic, kind="sqlite"),
        "e": lambda: rate_of_deviceops(stage, bulk),
        "f": lambda: _rate_of_ingest(stage, traffic),
        "g": lambda: rate_of_deviceops(stage, traffic, workers=2),
    }
    rounds: list[dict[str, float]] = []
    for number in range(sizes.rounds):
        found = {}
        names = list(runs)
        for name in names[number % len(names) :] + names[: number % len(names)]:  # nobody is always the first
            steps.next(f"round {number + 1}: ({name}) {CONSUMERS[name]}")
            found[name] = await runs[name]()
        rounds.append({name: found[name] for name in names})
    rates = {name: statistics.median(each[name] for each in rounds) for name in runs}
    ratios = {ratio: _ratio(rounds, *ratio.split("/")) for ratio in RATIOS}
    return {
        "rates": rates,
        "ratios": ratios,
        "rounds": rounds,
        "reports": traffic.expected.received,
        "tried": {"(a) with prefetch": prefetches, "(b) with concurrency": concurrencies},
    }


def _ratio(rounds: list[dict[str, float]], one: str, other: str) -> float:
    """The median of the rounds' ratios: what slows a whole round down, slows both."""
    return statistics.median(each[one] / each[other] for each in rounds)


async def _best(
    choices: tuple[int, ...], rate: Callable[[int], Awaitable[float]], steps: Steps, what: str
) -> tuple[int, Mapping[str, float]]:
    rates = {}
    for choice in choices:
        steps.next(f"{what} {choice:,}")
        rates[choice] = await rate(choice)
    return max(rates, key=lambda choice: rates[choice]), {str(choice): rate for choice, rate in rates.items()}


async def _rate_of_ingest(stage: Stage, traffic: Traffic) -> float:
    """Of `deviceops ingest FILE`, without the time that the same command takes for an empty file."""
    async with stage.scene() as scene:
        deviceops = Deviceops(stage.directory, dict(scene.settings))
        lines, nothing = stage.directory / "lines.jsonl", stage.directory / "nothing.jsonl"
        lines.write_text("".join(f"{line}\n" for line in traffic.lines()))
        nothing.touch()
        _, starting = _timed(deviceops, nothing)
        tally, taken = _timed(deviceops, lines)
        check_tally([tally], traffic.expected)
        await check_database(scene.database_url, traffic.expected)
    return traffic.expected.received / (taken - starting)


def _timed(deviceops: Deviceops, path: Path) -> tuple[Mapping[str, Any], float]:
    started = time.monotonic()
    tally = deviceops.document("ingest", str(path))
    return tally, time.monotonic() - started
