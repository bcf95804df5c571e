"""The benchmarks run from end to end at tiny sizes; what they measure is checked by themselves as they go."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.benchmarks.checking import check_database
from tests.benchmarks.cost import parts
from tests.benchmarks.latency import Round, medians, ratio
from tests.benchmarks.throughput import LEAST
from tests.benchmarks.traffic import Traffic
from tests.support.databases import NewDatabase
from worker.model.messages import ANNOUNCEMENT, REPORTS, Rejected
from worker.model.outcomes import Reason
from worker.model.parsing import parse
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
    seconds = figures["seconds"]
    assert sum(spent for part, spent in seconds.items() if part != "all") == pytest.approx(seconds["all"])
    assert seconds["all"] > 0  # a thousand reports are too few to find every part at work


BENCHMARKS: Mapping[str, Callable[[Any], None]] = {
    each.__name__: each for each in (throughput, latency, growth, memory, cost)
}


@pytest.mark.timeout(900)
def test_every_benchmark_writes_its_figures(tmp_path: Path, full: bool) -> None:
    """All in CI, every day the one that has all consumers, each of which fails unless it did the full work."""
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


def test_a_sample_counts_for_the_innermost_part() -> None:
    began = "run (/x/worker/cli/run.py:1)"
    samples = [
        f"{began};settle (/x/worker/processing/batches.py:1);execute (/p/sqlalchemy/engine.py:2) 3",
        f"{began};execute (/p/sqlalchemy/engine.py:2);bind (/p/asyncpg/stmt.py:3);wait (/y/typing.py:9) 2",
        f"{began};run (/p/uvloop/__init__.py:2) 1",
        "main (/x/worker/store/starting.py:1) 99",
    ]
    assert parts("\n".join(samples)) == Counter({"SQL build": 3, "driver": 2, "loop": 1})


def test_latencies_are_medians_of_the_rounds_in_which_a_consumer_kept_up() -> None:
    def a_round(a: float | None, c: float | None) -> Round:
        return {name: {"10": None if p99 is None else {"p99": p99}} for name, p99 in {"a": a, "c": c}.items()}

    rounds = [a_round(2, 8), a_round(2, None), a_round(4, 12)]
    assert medians([each["c"]["10"] for each in rounds]) == {"p99": 10}
    assert ratio(rounds, "10") == 3.5
    assert medians([None, {"p99": 1}]) is None
    assert ratio([a_round(2, 8), a_round(2, None)], "10") is None


def test_traffic_is_what_the_benchmarks_promise() -> None:
    """Some of it is malformed, some comes twice, everything has an id, and an announcement comes first."""
    traffic = Traffic.of(8_000, seed=1)
    items = [item for message in traffic.messages for item in parse(message)]
    assert len(items) == traffic.expected.received == pytest.approx(8_000, rel=0.1)
    assert sum(isinstance(item, Rejected) for item in items) / len(items) == pytest.approx(0.004, rel=0.5)
    twice = len(items) - len({message.message_id for message in traffic.messages})
    assert twice / len(items) == pytest.approx(0.02, rel=0.3)
    assert all(message.message_id for message in traffic.messages)
    assert traffic.messages[0].type == ANNOUNCEMENT
    bulk = traffic.in_bulk()
    assert sum(len(parse(message)) for message in bulk.messages) == traffic.expected.received
    assert sum(message.type == REPORTS for message in bulk.messages) > 0.8 * len(bulk.messages)
    assert list(Traffic.of(8_000, seed=1).lines()) == list(traffic.lines())


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
