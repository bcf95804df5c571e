"""What templates make of values: text from outside stays text, numbers and times are readable without scripts."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from statemachine import Counters
from worker.pages.bars import NARROWEST, WIDTH, bar_of
from worker.pages.errors import environment
from worker.pages.templating import duration, number, outside, short, when
from worker.store.documents import Progress

PARTS = ("in_success", "in_completed", "in_failure", "in_timeout", "in_cancelled", "in_processing", "in_created")


@given(st.text())
def test_text_from_outside_is_never_markup_and_stays_on_one_line(text: str) -> None:
    for shown in (outside(text), short(text, 5)):
        inside = str(shown).partition(">")[2].rpartition("<")[0] if "<" in str(shown) else str(shown)
        assert "<" not in inside
        assert str(shown).isprintable() or str(shown) == ""


def test_values_are_escaped_and_a_missing_name_is_an_error() -> None:
    assert environment.from_string("{{ x }}").render(x="<b>'\"") == "&lt;b&gt;&#39;&#34;"
    with pytest.raises(UndefinedError):
        environment.from_string("{{ missing }}").render()


def test_a_time_is_in_utc_for_readers_and_for_scripts() -> None:
    moment = datetime(2026, 1, 31, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert when(moment) == '<time class="when" datetime="2026-01-30T23:30:00Z">2026-01-30 23:30:00 UTC</time>'
    assert when(None) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1_234_567, "1,234,567"), (9.512, "9.51"), (12_345.6, "12,346"), (0.001, "0.001")],
)
def test_a_number_has_separators(value: float, text: str) -> None:
    assert number(value) == f'<data class="number" value="{value}">{text}</data>'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (-7_200, "2 h"),
        (90_061, "1 d 1 h"),
        (86_400 * 4_000, "4,000 d"),
    ],
)
def test_a_duration_has_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(
    st.lists(st.integers(0, 10**9), min_size=len(PARTS), max_size=len(PARTS)), st.integers(0, 10**9) | st.none()
)
def test_the_parts_of_a_bar_fill_it_and_the_smallest_is_seen(numbers: list[int], expected: int | None) -> None:
    counters = Counters(resolved_device_count=sum(numbers), **dict(zip(PARTS, numbers, strict=True)))
    bar = bar_of(Progress(counters, expected))

    assert sum(part.number for part in bar.parts) == bar.total == max(sum(numbers), expected or 0)
    assert sum(part.width for part in bar.parts) == (WIDTH if bar.total else 0)
    for before, part in zip(bar.parts, bar.parts[1:], strict=False):
        assert part.x == before.x + before.width
    for part in bar.parts:
        assert (part.width >= NARROWEST) if part.number else (part.width == 0)
    assert bar.settled == bar.total - bar.parts[-1].number
    assert bar.in_words.endswith(f"{bar.total:,} in all")


def test_the_time_is_that_of_now() -> None:
    until = environment.filters["until"]
    assert until(datetime.now(UTC) + timedelta(minutes=5, seconds=0.9)) == "in 5 min 1 s"
    assert until(datetime.now(UTC) - timedelta(hours=3)) == "3 h ago"
