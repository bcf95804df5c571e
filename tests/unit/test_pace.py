"""The pace of an operation: its rate, its ETA, and when it counts as stalled."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from statemachine import Counters
from tests.support.rollouts import RollOut, rollouts
from worker.model.minutes import Settled
from worker.model.pace import Course, Pace, pace
from worker.model.timing import milliseconds, moment

DAY = 86_400
BEGUN = 20_000 * DAY
"""When a roll-out begins, in seconds since 1970."""


def course(settled: Sequence[float], now: float, devices: int) -> Course:
    """How a roll-out went, as a database knows it; times in seconds since it began."""
    past = [BEGUN + at for at in settled[: bisect_right(settled, now)]]
    minutes = Counter(int(at // 60) for at in past)
    done = len(past)
    return Course(
        Counters(resolved_device_count=devices, dispatched_device_count=devices, in_success=done),
        devices,
        [Settled(minute, number) for minute, number in sorted(minutes.items())],
        int(1_000 * max(past, default=BEGUN)),
        int(1_000 * (BEGUN + now)),
    )


def remaining(found: Pace, now: float) -> float:
    """The seconds up to the ETA."""
    assert found.eta is not None
    return milliseconds(found.eta) / 1_000 - BEGUN - now


@pytest.fixture(scope="module")
def simulated() -> list[RollOut]:
    return list(rollouts())


def rate_of_hits(simulated: list[RollOut], share: float) -> tuple[float, Counter[str]]:
    """How many of the ETAs are within a fifth of the truth, and the kinds of the others."""
    missed: Counter[str] = Counter()
    for number, (kind, settled) in enumerate(simulated):
        offset = Random(number).uniform(0, 60)  # noqa: S311
        times = [at + offset for at in settled]
        now = times[int(share * len(times))]
        found = pace(course(times, now, len(times)))
        estimate, truth = now - offset + remaining(found, now), settled[-1]
        missed[kind] += abs(estimate - truth) > 0.2 * truth
    return 1 - missed.total() / len(simulated), missed


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_an_eta_is_within_a_fifth_of_the_truth_in_four_of_five_roll_outs(
    simulated: list[RollOut], share: float
) -> None:
    """The truth is the duration of the whole; `share` is that of the devices that have settled."""
    assert len(simulated) == 50
    hits, missed = rate_of_hits(simulated, share)
    assert hits >= 0.8, +missed


def test_no_pause_of_a_roll_out_is_a_stall_unless_it_is_out_of_the_ordinary(simulated: list[RollOut]) -> None:
    """From a quarter of the way on: the first pause between two waves is out of the ordinary."""
    stalled: Counter[str] = Counter()
    for kind, settled in simulated:
        if len(settled) > 5_000 and kind != "night":
            continue  # no other than the smaller ones, and takes long
        quarter, end = settled[len(settled) // 4], settled[-1]
        for step in range(30):
            now = quarter + (end - quarter) * step / 30
            stalled[kind] += pace(course(settled, now, len(settled))).is_stalled
    assert stalled.pop("night") > 5
    assert stalled.pop("all_at_once") < 5, "the slowest of all"
    assert not +stalled


def steady(minutes: int, number: int = 6) -> list[float]:
    """So many devices in each minute."""
    return [60 * (at + 0.5) / number for at in range(minutes * number)]


def test_an_operation_is_stalled_after_ten_usual_pauses_without_any_movement() -> None:
    times = steady(30)
    last = times[-1]

    assert not pace(course(times, last + 599, 1_000)).is_stalled
    found = pace(course(times, last + 601, 1_000))

    assert found == Pace(stalled_since=moment(int(1_000 * (BEGUN + last))))


def test_the_pauses_between_waves_are_usual() -> None:
    waves = [hour * 3_600 + at for hour in range(5) for at in steady(10)]

    assert not pace(course(waves, waves[-1] + 3 * 3_600, 1_000)).is_stalled
    assert pace(course(waves, waves[-1] + 10 * 3_600, 1_000)).is_stalled


def test_a_stall_that_is_over_says_nothing_of_the_pace_nor_of_the_next_stall() -> None:
    times = steady(30) + [at + 30 * 3_600 for at in steady(10)]
    now = times[-1]

    found = pace(course(times, now, len(times) + 600))

    assert found.rate == pytest.approx(6, rel=0.05)
    assert remaining(found, now) == pytest.approx(6_000, rel=0.05)
    assert pace(course(times, now + 601, 1_000)).is_stalled


def test_what_is_dispatched_is_movement() -> None:
    times = steady(30)
    now = times[-1] + 3_600
    found = course(times, now, 1_000)

    assert pace(found).is_stalled
    assert not pace(found._replace(moved_at=found.clock - 1_000)).is_stalled


def test_nothing_that_has_settled_yet_is_a_stall_only_after_an_hour() -> None:
    assert pace(course([], 3_500, 30)) == Pace()
    assert pace(course([], 3_700, 30)).is_stalled


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        (Counters(), None),
        (Counters(), 10),
        (Counters(resolved_device_count=5, in_created=5), 10),
        (Counters(resolved_device_count=5, in_success=5, success_device_count=5), 5),
        (Counters(resolved_device_count=5, in_failure=5, failed_device_count=5), None),
    ],
    ids=["nothing", "announced", "not begun", "completed", "failed"],
)
def test_what_has_not_begun_or_is_over_has_no_pace(counters: Counters, expected: int | None) -> None:
    found = course(steady(30), 10 * DAY, 1)._replace(counters=counters, expected=expected)

    assert pace(found) == Pace()


def test_what_is_announced_and_not_registered_yet_is_still_to_be_done() -> None:
    times = steady(10)
    found = course(times, times[-1], 60)

    assert remaining(pace(found._replace(expected=120)), times[-1]) == pytest.approx(600, rel=0.1)


def test_hours_that_are_thinned_count_as_hours() -> None:
    hour = BEGUN // 3_600
    minutes = [Settled((hour + each) * 60, 360, 60) for each in range(3)]
    found = course([], 3 * 3_600, 2_160)._replace(minutes=minutes, moved_at=1_000 * (BEGUN + 3 * 3_600))
    found = found._replace(counters=found.counters._replace(in_success=1_080))

    assert pace(found).rate == pytest.approx(6)


def test_a_clock_behind_that_of_the_last_report_makes_no_difference() -> None:
    found = course(steady(10), 600, 120)

    assert pace(found._replace(clock=found.clock - 90_000)).rate > 0


def test_an_eta_in_the_far_future_is_none() -> None:
    found = course([30.0, 7_200.0], 7_200, 10**9)

    assert pace(found).rate > 0
    assert pace(found).eta is None
