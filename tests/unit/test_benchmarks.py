"""What the benchmarks compute."""

from collections import Counter

import pytest

from tests.benchmarks.cost import parts
from tests.benchmarks.latency import Round, medians, ratio
from tests.benchmarks.traffic import Traffic
from worker.model.messages import ANNOUNCEMENT, REPORTS, Rejected
from worker.model.parsing import parse


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
