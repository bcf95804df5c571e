"""The texts of hours in which minutes are kept."""

from hypothesis import given
from hypothesis import strategies as st

from worker.model.minutes import entry, read, thinned

numbers = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 10**12)), min_size=1)


def written(numbers: list[tuple[int, int]]) -> dict[int, str]:
    """The texts by hour."""
    hours: dict[int, str] = {}
    for minute, number in numbers:
        hour, text = entry(minute, number)
        hours[hour] = f"{hours[hour]} {text}" if hour in hours else text
    return hours


@given(numbers)
def test_what_is_written_is_read_by_the_minute(numbers: list[tuple[int, int]]) -> None:
    found = read(written(numbers).items())

    assert {each.minute: each.number for each in found} == {
        minute: sum(number for one, number in numbers if one == minute) for minute, _ in numbers
    }
    assert [each.minute for each in found] == sorted({minute for minute, _ in numbers})


@given(numbers, numbers)
def test_thinning_keeps_the_sum_also_of_what_comes_after(
    before: list[tuple[int, int]], after: list[tuple[int, int]]
) -> None:
    hours = {hour: thinned(text) for hour, text in written(before).items()}
    for hour, text in written(after).items():
        hours[hour] = f"{hours[hour]} {text}" if hour in hours else text
    twice = [(hour, thinned(text)) for hour, text in hours.items()]

    total = sum(number for _, number in before + after)
    assert sum(each.number for each in read(hours.items())) == total
    assert sum(each.number for each in read(twice)) == total
    assert {each.minutes for each in read(twice)} == {60}


def test_a_minute_of_a_busy_operation_takes_a_fifth_of_what_it_may() -> None:
    hour = written([(minute, 10_000) for minute in range(60)])[0]

    assert len(hour) / 60 < 10
