"""Timeouts and abort thresholds of announcements and settings: what is accepted, and what holds."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from statemachine import Timeouts
from tests.support.sending import ANNOUNCEMENT, DEVICES, OPERATIONS, announcement_body, message
from worker.model import timing
from worker.model.messages import Announced, Rejected
from worker.model.outcomes import Reason
from worker.model.parsing import parse
from worker.model.timing import Defaults, Timing, effective, in_words

ABORT = {"failed_percent": 20, "min_settled": 100, "action": "cancel"}
NO_DURATIONS: list[object] = [
    -1,
    0,
    0.0,
    -0.5,
    float("inf"),
    float("nan"),
    timing.MAX_TIMEOUT + 1,
    10**400,
    "60",
    True,
    [60],
    {},
]
NO_TIMES: list[object] = ["2026-01-31", "2026-01-31T08:00:00", "tomorrow", "", 1769846400, 1.5, True, [], {}]
NO_OBJECTS: list[object] = [60, "60", True, [], [60]]
NOT_IN_ABORT: dict[str, list[object]] = {
    "failed_percent": [0, 0.5, 101, 100.5, -1, float("nan"), float("inf"), 10**400, "20", True, None],
    "min_settled": [0, -1, 1.5, 2**31, 10**400, "1", True, None],
    "action": ["stop", "CANCEL", "", 1, True, None],
}


def wrong() -> Iterator[tuple[str, dict[str, object]]]:
    """Fields of an announcement that are refused, after the name that the refusal gives."""
    for kind in ("pending", "in_progress", "step", "total"):
        for value in NO_DURATIONS:
            yield f"timeouts.{kind}", {"timeouts": {kind: value}}
    yield "timeouts.soon", {"timeouts": {"soon": 1}}
    yield "timeouts.soon", {"timeouts": {"soon": None}}
    yield "timeouts.deadline", {"timeouts": {"deadline": "2026-01-31T08:00:00Z"}}
    for value in NO_TIMES:
        yield "deadline", {"deadline": value}
    for name, values in NOT_IN_ABORT.items():
        yield f"abort.{name}", {"abort": {n: v for n, v in ABORT.items() if n != name}}
        for value in values:
            yield f"abort.{name}", {"abort": {**ABORT, name: value}}
    yield "abort.after", {"abort": {**ABORT, "after": 1}}
    for name in ("timeouts", "abort"):
        for value in NO_OBJECTS:
            yield name, {name: value}


@pytest.mark.parametrize(("field", "fields"), [*wrong()], ids=str)
def test_a_timeout_or_threshold_that_cannot_hold_is_malformed_and_named(
    field: str, fields: dict[str, object]
) -> None:
    [item] = parse(message(announcement_body(OPERATIONS[0], DEVICES, **fields), ANNOUNCEMENT))

    assert isinstance(item, Rejected)
    assert item.reason is Reason.MALFORMED
    assert item.detail.startswith(f"{field}: "), item.detail


@pytest.mark.parametrize(
    "fields",
    [
        {"timeouts": {"pending": 0.001, "in_progress": 1, "step": 60.5, "total": timing.MAX_TIMEOUT}},
        {"timeouts": {"pending": None, "total": 1e3}},
        {"timeouts": {}},
        {"timeouts": None, "deadline": None, "abort": None},
        {"deadline": "2026-01-31T08:00:00+01:00"},
        {"deadline": "0001-01-01T00:00:00Z"},
        {"deadline": "9999-12-31T23:59:59.999999Z"},
        {"abort": {**ABORT, "failed_percent": 1, "min_settled": 5.0}},
        {"abort": {**ABORT, "failed_percent": 33.3, "action": "notify"}},
    ],
    ids=str,
)
def test_what_can_hold_is_accepted(fields: dict[str, object]) -> None:
    [item] = parse(message(announcement_body(OPERATIONS[0], DEVICES, **fields), ANNOUNCEMENT))
    assert isinstance(item, Announced), item


@pytest.fixture
def defaults() -> Iterator[None]:
    """Settings that do not outlive the test."""
    yield
    timing.set_defaults(Defaults())


def given(**timeouts: dict[str, float]) -> None:
    """Set the timeouts by type; `others` stands for all types that are not named."""
    named = {("*" if name == "others" else name): value for name, value in timeouts.items()}
    timing.set_defaults(Defaults.model_validate({"timeouts": named}))


@pytest.mark.usefixtures("defaults")
def test_the_setting_of_the_type_holds_and_else_that_of_all_types() -> None:
    given(CONVERGE={"pending": 60}, others={"pending": 600, "total": 3_600})

    assert effective(Timing(), "CONVERGE") == Timeouts(pending=60_000)  # one or the other, not mixed
    assert effective(Timing(), "REBOOT") == Timeouts(pending=600_000, total=3_600_000)
    assert effective(Timing(), None) == effective(Timing(), "REBOOT")


@pytest.mark.usefixtures("defaults")
def test_without_a_setting_for_all_types_the_others_have_no_timeouts() -> None:
    given(CONVERGE={"pending": 60})

    assert effective(Timing(), "REBOOT") is None
    assert effective(Timing(), None) is None
    assert effective(Timing(deadline=5), "REBOOT") == Timeouts(deadline=5)


@pytest.mark.usefixtures("defaults")
def test_what_an_announcement_does_not_name_comes_from_the_setting() -> None:
    given(CONVERGE={"pending": 60, "step": 90})

    named = Timing(json.dumps({"step": 1.5, "total": 10}))

    assert effective(named, "CONVERGE") == Timeouts(pending=60_000, step=1_500, total=10_000)


@pytest.mark.usefixtures("defaults")
def test_the_end_of_a_schedule_is_a_deadline_only_where_the_setting_says_so() -> None:
    schedule = Timing(deadline=None, schedule_end=7)
    both = Timing(deadline=9, schedule_end=7)

    assert effective(schedule, None) is None
    assert effective(both, None) == Timeouts(deadline=9)
    timing.set_defaults(Defaults(schedule_ends=True))
    assert effective(schedule, None) == effective(both, None) == Timeouts(deadline=7)


@pytest.mark.usefixtures("defaults")
def test_settings_are_equal_whatever_the_order_of_their_types() -> None:
    one = Defaults.model_validate({"timeouts": {"A": {"step": 1}, "B": {"step": 2}}})
    other = Defaults.model_validate({"timeouts": {"B": {"step": 2}, "A": {"step": 1}}})
    assert one.text == other.text
    assert one.text != Defaults(timeouts=one.timeouts, schedule_ends=True).text


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (1, "0.001 s"),
        (1_500, "1.5 s"),
        (60_000, "1 min"),
        (90_000, "90 s"),
        (7_200_000, "2 h"),
        (86_400_000, "1 d"),
    ],
)
def test_a_duration_in_words(milliseconds: int, words: str) -> None:
    assert in_words(milliseconds) == words


@pytest.mark.parametrize(("action", "words"), [("cancel", "aborted: "), ("notify", "abort threshold crossed: ")])
def test_what_crossed_a_threshold_is_called_aborted_only_where_something_was(action: str, words: str) -> None:
    crossed = timing.threshold(json.dumps({"failed_percent": 20, "min_settled": 100, "action": action}))
    tripped = timing.Tripped(at=datetime(2026, 1, 31, tzinfo=UTC), settled=110, failed=23)

    assert tripped.in_words(crossed) == (
        f"{words}23 of 110 settled device operations failed (20.9%); "
        f"the threshold is 20% of at least 100 ({action})"
    )
