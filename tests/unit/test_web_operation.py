"""The parts of an operation's page that are computed: the chart of what settled, and how near a threshold is."""

from hypothesis import given
from hypothesis import strategies as st

from statemachine import AbortAction, Counters, Threshold
from worker.model.minutes import MILLISECONDS, Settled
from worker.model.pace import Course
from worker.pages.operation.chart import FEWEST_BARS, HEIGHT, MOST_BARS, WIDTH, chart_of
from worker.pages.operation.going import nearness

DAY = 24 * 60
NOW = 29_000_000
"""Minutes since 1970."""
EVENTS = st.lists(st.tuples(st.integers(0, 31 * DAY), st.integers(1, 10**6)), min_size=1, max_size=200)


def course(settled: dict[int, int], *, minutes: int = 1, open_: int = 0, before: int = 0) -> Course:
    """How an operation has gone: numbers by minutes ago; so many are open, and so many settled earlier."""
    done = sum(settled.values()) + before
    counters = Counters(
        resolved_device_count=done + open_, success_device_count=done, in_success=done, in_created=open_
    )
    found = [Settled(NOW - ago, number, minutes) for ago, number in sorted(settled.items(), reverse=True)]
    return Course(counters, None, found, NOW * MILLISECONDS, NOW * MILLISECONDS + 1)


@given(EVENTS, st.booleans(), st.integers(0, 5))
def test_a_chart_shows_each_device_once_in_few_bars_that_fit(
    events: list[tuple[int, int]], is_open: bool, before: int
) -> None:
    settled = dict(events)
    found = chart_of(course(settled, open_=int(is_open), before=before))

    assert found is not None
    assert sum(bar.number for bar in found.bars) == sum(settled.values())
    assert found.bars[-1].so_far == sum(settled.values()) + before
    assert len(found.bars) <= MOST_BARS
    assert all(bar.y + bar.height == HEIGHT and 0 <= bar.x < bar.x + bar.width <= WIDTH for bar in found.bars)
    assert all((bar.height > 0) == (bar.number > 0) for bar in found.bars)
    assert found.highest.height == HEIGHT
    assert [bar.start for bar in found.bars] == sorted(bar.start for bar in found.bars)
    for first, second in zip(found.bars, found.bars[1:], strict=False):
        assert first.x + first.width < second.x
        assert (second.start - first.start).total_seconds() == 60 * found.period


def test_an_operation_that_goes_on_is_shown_up_to_now_and_one_that_is_over_is_not() -> None:
    going, over = chart_of(course({50: 3}, open_=1)), chart_of(course({50: 3}))

    assert going is not None
    assert over is not None
    assert (len(going.bars), going.bars[-1].number, going.bars[-1].is_over) == (51, 0, False)
    assert (len(over.bars), over.bars[-1].number, over.bars[-1].is_over) == (1, 3, True)
    assert over.bars[0].width < WIDTH / FEWEST_BARS


def test_hours_that_were_thinned_are_not_shown_as_minutes() -> None:
    found = chart_of(course({3 * 60: 7, 2 * 60: 9}, minutes=60))

    assert found is not None
    assert found.period >= 60
    assert "16 settled" in found.in_words


def test_nothing_settled_is_no_chart() -> None:
    assert chart_of(course({}, open_=3)) is None


@given(
    st.floats(1, 100),
    st.integers(1, 50),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 30),
    st.integers(0, 5),
)
def test_so_many_more_failures_cross_the_threshold_and_one_fewer_does_not(
    percent: float, least: int, well: int, bad: int, open_: int, unregistered: int
) -> None:
    limit = Threshold(percent, least, AbortAction.CANCEL)

    def after(failures: int) -> Counters:
        failed = bad + failures
        return Counters(
            resolved_device_count=well + bad + open_,
            failed_device_count=failed,
            in_failure=failed,
            success_device_count=well,
            in_success=well,
        )

    left = open_ + unregistered
    crossing = next((each for each in range(1, left + 1) if limit.is_crossed(after(each))), None)

    assert limit.is_crossed(after(0)) or nearness(limit, after(0), unregistered).further == crossing
