"""The model of several workers: what can be said of it without measuring."""

from dataclasses import replace

import pytest

from tests.benchmarks.scaling import Times, rate

TIMES = Times(outside=0.01, inside=0.02, database=0.02, waiting=0.01, broker=0.01, reports=1_000)


def test_one_worker_takes_the_sum_of_all_times() -> None:
    assert rate(TIMES, 1, processors=8) == pytest.approx(1_000 / 0.06, rel=0.01)


def test_with_the_lock_the_transaction_alone_is_the_limit() -> None:
    assert rate(TIMES, 4, processors=32) == pytest.approx(1_000 / 0.05, rel=0.01)


def test_without_the_lock_each_worker_adds_its_rate() -> None:
    apart = replace(TIMES, has_lock=False)
    assert rate(apart, 8, processors=64) == pytest.approx(8 * rate(apart, 1, processors=8), rel=0.02)


def test_two_lanes_hide_what_the_worker_waits_for() -> None:
    lanes = replace(TIMES, has_lock=False, lanes=2)
    alone, limit = rate(TIMES, 1, processors=8), 1_000 / 0.03  # its own thread
    assert 1.5 * alone < rate(lanes, 1, processors=8) < 0.95 * limit  # at times both wait


def test_no_more_is_done_than_processors_can() -> None:
    apart = replace(TIMES, has_lock=False)
    assert rate(apart, 8, processors=2) == pytest.approx(2 * 1_000 / 0.06, rel=0.05)
