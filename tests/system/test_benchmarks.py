"""The benchmarks run from end to end at tiny sizes; what they measure is checked by themselves as they go."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import make_url

from tests.benchmarks.checking import check_database
from tests.benchmarks.throughput import LEAST
from tests.benchmarks.traffic import Traffic
from tests.support.databases import NewDatabase
from tests.support.services import POOLERS, PoolMode
from worker.model.outcomes import Reason
from worker.processing.batches import process_messages
from worker.store.database import Database

ROOT = Path(__file__).parents[2]


def throughput(figures: Any) -> None:
    assert list(figures["rates"]) == list("abcdefg")
    assert all(figures["rates"][name] > 0 for name in "abcdeg")  # so few lines take less than starting varies
    assert list(figures["ratios"]) == ["c/b", "c/a", "d/a", "e/a", "g/c"]
    [only] = figures["rounds"]
    assert only == figures["rates"]
    assert figures["ratios"]["c/b"] == only["c"] / only["b"] > 1
    assert figures["conditions"]["postgresql"]["fsync"] == "on"
    assert 0 <= figures["conditions"]["stolen"] < 1


def latency(figures: Any) -> None:
    assert list(figures["milliseconds"]) == ["a", "b", "c"]
    for rates in figures["milliseconds"].values():
        assert 0 < rates["10"]["p50"] <= rates["10"]["p99"]
    [only] = figures["rounds"]
    assert only == figures["milliseconds"]
    assert figures["ratios"]["c/a p99 at 10"] == only["c"]["10"]["p99"] / only["a"]["10"]["p99"]


def changes(figures: Any) -> None:
    assert list(figures["rates"]) == ["none", "operations", "all"]
    assert all(rate > 0 for rate in figures["rates"].values())
    assert figures["milliseconds_from_commit"]["to a listener"]["p50"] > 0
    assert list(figures["milliseconds_of_reports"]) == ["without", "with followers", "with pages"]


def growth(figures: Any) -> None:
    assert list(figures["rates"]) == list(figures["rates_of_one_operation"]) == ["20", "200", "2000"]
    assert all(rate > 0 for rate in figures["rates"].values())
    assert figures["bytes_per_report"]["2000"] > 0
    assert list(figures["reading_ms"]) == ["20", "200", "2000", "1000"]


def memory(figures: Any) -> None:
    resident = figures["resident_bytes"]
    assert figures["ratios"]["end/first"] == resident["end"] / resident["first"]
    assert resident["peak"] > 10_000_000


def cost(figures: Any) -> None:
    for spent in figures["microseconds_of_a_report"].values():
        assert spent["workers"] + spent["PostgreSQL"] + spent["RabbitMQ"] == pytest.approx(spent["all"])
    seconds = figures["seconds"]
    assert sum(spent for part, spent in seconds.items() if part != "all") == pytest.approx(seconds["all"])
    assert seconds["all"] > 0  # a thousand reports are too few to find every part at work


def replicas(figures: Any) -> None:
    assert list(figures["rates"]) == ["one of each", "three brokers", "a synchronous standby", "both"]
    [only] = figures["rounds"]
    assert only == figures["rates"]
    assert figures["ratios"]["both / one of each"] == only["both"] / only["one of each"]


def poolers(figures: Any) -> None:
    names = [f"{mode}s, PgBouncer {version}" for version in POOLERS for mode in get_args(PoolMode)]
    assert list(figures["rates"]) == ["direct", *names]
    [only] = figures["rounds"]
    assert only == figures["rates"]
    assert figures["ratios"] == {f"{name} / direct": only[name] / only["direct"] for name in names}


def workers(figures: Any) -> None:
    assert all(rate > 0 for rate in figures["rates"].values())
    [only] = figures["rounds"]
    assert only == figures["rates"]
    name = "4 workers, 8 partitions"
    assert figures["ratios"][f"{name} / 1 worker, 8 partitions"] == only[name] / only["1 worker, 8 partitions"]
    assert figures["share_of_transactions"][name]["for the batch lock"] == 0
    assert list(figures["microseconds_of_a_report"][name]) == ["workers", "RabbitMQ", "PostgreSQL", "benchmark"]


def large(figures: Any) -> None:
    assert all(rate > 0 for rate in figures["rates"].values())
    [only] = figures["rounds"]
    assert only == figures["rates"]
    first, last = "1 worker, one queue", "4 workers, 8 partitions by device"
    assert figures["ratios"][f"{last} / {first}"] == only[last] / only[first]
    assert figures["share_of_transactions"][last]["for the batch lock"] == 0


def timeouts(figures: Any) -> None:
    assert list(figures["seconds_until_timeout"]) == ["100 a second", "500 at once"]
    for seconds in figures["seconds_until_timeout"].values():
        assert 0 <= seconds["p50"] <= seconds["p99"] <= seconds["longest"]
    [only] = figures["rounds"]
    reports = only["reports"]
    ratio = reports["meanwhile"]["p99"] / reports["before"]["p99"]
    assert figures["ratios"]["report p99 meanwhile/before"] == ratio


def retry(figures: Any) -> None:
    assert figures["device_operations"] == {"in all": 2_000, "retried": 200}
    [only] = figures["rounds"]
    assert figures["seconds"]["retry"] == only > 0
    assert figures["rates"]["device operations a second"] == 200 / only


def filters(figures: Any) -> None:
    for name, times in figures["milliseconds"].items():
        assert figures["ratios"][f"{name} 20000/1000"] == times["20000"] / times["1000"]
    assert list(figures["page_with_repeated_reports_ms"]) == ["none", "100 a device"]
    for each in figures["exports"].values():
        assert each["mb"] > 4
        assert each["peak_mb"] > 10


BENCHMARKS: Mapping[str, Callable[[Any], None]] = {
    each.__name__: each
    for each in (
        throughput,
        latency,
        growth,
        memory,
        cost,
        replicas,
        poolers,
        workers,
        large,
        timeouts,
        changes,
        retry,
        filters,
    )
}


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_every_benchmark_writes_its_figures(tmp_path: Path, full: bool) -> None:
    """All with --full, else the one with all consumers, each of which fails unless it did the full work."""
    names = list(BENCHMARKS) if full else ["throughput"]
    figures, picture = tmp_path / "figures.json", tmp_path / "rates.svg"
    for name in names:
        command = [sys.executable, "-m", "tests.benchmarks", name, "--quick"]
        options = ["--json", str(figures), "--chart", str(picture)]
        done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert name in done.stdout
        BENCHMARKS[name](json.loads(figures.read_text()))
    assert "<svg" in picture.read_text()


def test_a_consumer_that_lost_a_report_is_found_out(new_sqlite_database: NewDatabase) -> None:
    """And one per cent of the reports becomes dead letters, of each kind."""
    traffic = Traffic.of(LEAST, seed=5)

    async def process(url: str, count: int) -> int:
        database = Database(make_url(url))
        tally = await process_messages(database, traffic.messages[:count])
        await database.close()
        await check_database(url, traffic.expected)
        assert set(tally.dead_lettered) == {Reason.MALFORMED, Reason.CONFLICT, Reason.UNKNOWN_DEVICE_OPERATION}
        assert tally.duplicate
        return tally.dead_lettered.total()

    bad = asyncio.run(process(new_sqlite_database(), len(traffic.messages)))
    assert 0.005 < bad / len(traffic.messages) < 0.02
    with pytest.raises(AssertionError, match="are settled"):
        asyncio.run(process(new_sqlite_database(), len(traffic.messages) - 1))
