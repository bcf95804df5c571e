"""The benchmarks run from end to end at tiny sizes; what they measure is checked by themselves as they go."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.benchmarks.checking import check_database
from tests.benchmarks.cost import parts
from tests.benchmarks.traffic import Traffic
from tests.databases import NewDatabase
from worker.batches import settle
from worker.messages import ANNOUNCEMENT, REPORTS, Rejected, parse
from worker.store.database import Database

ROOT = Path(__file__).parent.parent
TINY = ("--rounds", "1", "--reports", "1000", "--messages", "1000", "--seconds", "0.5")


def measured(tmp_path: Path, name: str, *options: str) -> Any:
    """What a benchmark writes."""
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.benchmarks", name, *TINY, "--json", str(path), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout
    return json.loads(path.read_text())


def test_throughput_gives_the_rate_of_every_consumer_and_the_ratios_that_have_targets(tmp_path: Path) -> None:
    """Each run of a consumer fails unless it did the full work."""
    picture = tmp_path / "rates.svg"
    figures = measured(tmp_path, "throughput", "--chart", str(picture))
    assert list(figures["rates"]) == list("abcdefg")
    assert all(rate > 0 for rate in figures["rates"].values())
    assert list(figures["ratios"]) == ["c/b", "c/a", "d/a", "e/a", "g/c"]
    [only] = figures["rounds"]
    assert only == figures["rates"]
    assert figures["ratios"]["c/b"] == only["c"] / only["b"] > 1
    assert figures["conditions"]["postgresql"]["fsync"] == "on"
    assert "<svg" in picture.read_text()


def test_latency_is_told_of_each_consumer_that_keeps_up(tmp_path: Path, full: bool) -> None:
    figures = measured(tmp_path, "latency", "--rate", "1000" if full else "10")
    for rates in figures["milliseconds"].values():
        assert 0 < rates["10"]["p50"] <= rates["10"]["p99"]
    assert figures["ratios"]["c/a p99 at 10"] > 0


def test_memory_is_told_after_the_first_messages_and_at_the_end(tmp_path: Path) -> None:
    figures = measured(tmp_path, "memory")
    assert figures["ratios"]["end/first"] == figures["resident_bytes"]["end"] / figures["resident_bytes"]["first"]
    assert figures["resident_bytes"]["peak"] > 10_000_000


def test_cost_shares_the_processor_time_among_the_parts(tmp_path: Path) -> None:
    seconds = measured(tmp_path, "cost")["seconds"]
    assert sum(spent for part, spent in seconds.items() if part != "all") == pytest.approx(seconds["all"])
    assert seconds["SQL build"] > 0


def test_growth_compares_databases_of_several_sizes(tmp_path: Path) -> None:
    figures = measured(tmp_path, "growth", "--devices", "2000")
    assert list(figures["rates"]) == ["20", "200", "2000"]
    assert all(rate > 0 for rate in figures["rates"].values())
    assert figures["bytes_per_report"]["2000"] > 0
    assert list(figures["reading_ms"]) == ["20", "200", "2000", "1000"]


def test_a_sample_counts_for_the_innermost_part() -> None:
    began = "run (/x/worker/cli/running.py:1)"
    samples = [
        f"{began};settle (/x/worker/batches.py:1);execute (/p/sqlalchemy/engine.py:2) 3",
        f"{began};execute (/p/sqlalchemy/engine.py:2);bind (/p/asyncpg/stmt.py:3);wait (/y/typing.py:9) 2",
        f"{began};run (/p/uvloop/__init__.py:2) 1",
        "main (/x/worker/store/starting.py:1) 99",
    ]
    assert parts("\n".join(samples)) == Counter({"SQL build": 3, "driver": 2, "loop": 1})


def test_traffic_is_what_the_benchmarks_promise() -> None:
    """1% of it is bad, 2% comes twice, an operation is announced before anything else is said of it."""
    traffic = Traffic.of(20_000, seed=1)
    items = [item for message in traffic.messages for item in parse(message)]
    assert len(items) == traffic.expected.received == pytest.approx(20_000, rel=0.1)
    assert sum(isinstance(item, Rejected) for item in items) / len(items) == pytest.approx(0.004, rel=0.3)
    twice = len(items) - len({message.message_id for message in traffic.messages})
    assert twice / len(items) == pytest.approx(0.02, rel=0.3)
    assert all(message.message_id for message in traffic.messages)
    assert traffic.messages[0].type == ANNOUNCEMENT
    bulk = traffic.in_bulk()
    assert sum(len(parse(message)) for message in bulk.messages) == traffic.expected.received
    assert sum(message.type == REPORTS for message in bulk.messages) > 0.8 * len(bulk.messages)
    assert list(Traffic.of(20_000, seed=1).lines()) == list(traffic.lines())


def test_a_consumer_that_lost_a_report_is_found_out(new_sqlite_database: NewDatabase) -> None:
    traffic = Traffic.of(1_000, seed=1)

    async def process(url: str, count: int) -> None:
        database = Database(make_url(url))
        await settle(database, traffic.messages[:count])
        await database.close()
        await check_database(url, traffic.expected)

    asyncio.run(process(new_sqlite_database(), len(traffic.messages)))
    with pytest.raises(AssertionError, match="are settled"):
        asyncio.run(process(new_sqlite_database(), len(traffic.messages) - 1))
