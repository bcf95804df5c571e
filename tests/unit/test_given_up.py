"""The broker's account of a message that it gave up, in words."""

import pytest

from worker.amqp.x_death import describe, parse_x_death


@pytest.mark.parametrize(
    "header",
    [
        None,
        "text",
        b"\xff",
        7,
        [],
        [7],
        [{}],
        [{"reason": 3, "queue": []}],
    ],
)
def test_a_story_that_is_not_the_brokers_is_told_as_such(header: object) -> None:
    assert "not the broker's" in describe(parse_x_death({"x-death": header}))


def test_a_long_story_is_told_in_one_line_the_latest_death_first() -> None:
    deaths = [
        {"reason": reason, "queue": "q\n" * 90, "count": 2}
        for reason in ("expired", "rejected", "maxlen", "?", "?")
    ]

    story = describe(parse_x_death({"x-death": deaths}))

    assert "\n" not in story
    assert len(story) < 600
    assert story.index("time to live") < story.index("before that, a consumer rejected it")
    assert story.endswith("and 2 more deaths")


def test_an_entry_that_is_not_the_brokers_hides_no_other() -> None:
    deaths = [{"reason": "expired", "queue": 7}, "mine", {"reason": "maxlen", "queue": "q"}]
    assert [death.reason for death in parse_x_death({"x-death": deaths})] == ["maxlen"]
