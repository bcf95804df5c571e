"""What counts as processed: never a message that still waits, is held by somebody, or went back into the queue."""

from uuid import UUID

import pytest

from worker.model.watermark import (
    GONE_AFTER,
    Look,
    Phase,
    Progress,
    is_confirmed,
    known_consumers,
    processed_until,
)

HOUR = 3_600_000
NOW = 1_000_000
"""The database's clock, in milliseconds."""
LOOK = Look(NOW - 2_000, NOW - 1_900, 2)


def row(
    number: int,
    settled_until: int = NOW - 100,
    seen_at: int = NOW - 100,
    phase: Phase = Phase.CONSUMING,
    processed_until: int = 0,
    queue: str = "reports",
) -> Progress:
    return Progress(UUID(int=number), queue, phase, seen_at, settled_until, processed_until)


def test_a_look_is_confirmed_once_all_consumers_have_settled_what_they_had_by_its_end() -> None:
    assert is_confirmed(LOOK, [row(1), row(2)], NOW) is True
    assert is_confirmed(LOOK, [row(1), row(2, settled_until=LOOK.ended)], NOW) is True
    assert is_confirmed(LOOK, [row(1), row(2, settled_until=LOOK.ended - 1)], NOW) is False
    assert is_confirmed(LOOK, [row(1), row(2), row(3, settled_until=0)], NOW) is False  # it came later


def test_who_drains_has_to_settle_as_well_and_is_not_the_consumer_that_the_broker_counts() -> None:
    draining = row(2, phase=Phase.DRAINING)
    assert is_confirmed(LOOK, [row(1), draining], NOW) is None
    alone = LOOK._replace(consumers=1)
    assert is_confirmed(alone, [row(1), draining], NOW) is True
    assert is_confirmed(alone, [row(1), draining._replace(settled_until=LOOK.began)], NOW) is False


def test_a_look_counts_for_nothing_while_the_broker_knows_a_consumer_that_says_nothing() -> None:
    assert is_confirmed(LOOK, [row(1)], NOW) is None
    assert is_confirmed(LOOK._replace(consumers=0), [], NOW) is True
    assert known_consumers([row(1), row(2, phase=Phase.DRAINING), row(3, phase=Phase.GONE)], NOW) == 1
    assert known_consumers([row(1, seen_at=NOW - GONE_AFTER), row(2, seen_at=NOW - GONE_AFTER + 1)], NOW) == 1


@pytest.mark.parametrize("phase", [Phase.CONSUMING, Phase.DRAINING])
def test_a_look_counts_for_nothing_if_a_consumer_was_lost_since_it_began(phase: Phase) -> None:
    alone = LOOK._replace(consumers=1)
    silent = NOW - GONE_AFTER
    assert is_confirmed(alone, [row(1), row(2, seen_at=silent, phase=phase)], NOW) is None
    lost_before = LOOK.began - GONE_AFTER
    assert is_confirmed(alone, [row(1), row(2, seen_at=lost_before, phase=phase)], NOW) is None
    assert is_confirmed(alone, [row(1), row(2, seen_at=lost_before - 1, phase=phase)], NOW) is True


def test_a_look_counts_for_nothing_if_a_consumer_has_left_since_it_began() -> None:
    alone = LOOK._replace(consumers=1)
    assert is_confirmed(alone, [row(1), row(2, seen_at=LOOK.began, phase=Phase.GONE)], NOW) is None
    assert is_confirmed(alone, [row(1), row(2, seen_at=LOOK.began - 1, phase=Phase.GONE)], NOW) is True


def test_a_look_counts_for_nothing_once_the_clock_was_set_back() -> None:
    assert is_confirmed(LOOK, [row(1), row(2)], LOOK.began - 1) is None


@pytest.mark.parametrize("phase", Phase)
def test_who_spoke_before_the_clock_was_set_back_says_nothing(phase: Phase) -> None:
    before = row(3, seen_at=NOW + 1, settled_until=NOW, phase=phase)
    assert known_consumers([row(1), row(2), before], NOW) == 2
    assert is_confirmed(LOOK, [row(1), row(2), before], NOW) is True  # it holds nothing back
    assert is_confirmed(LOOK, [row(1), before], NOW) is None  # nor does it speak for one that may hold messages


def test_what_is_processed_is_known_only_if_it_is_of_every_queue() -> None:
    rows = [row(1, queue="a", processed_until=5), row(2, queue="a", processed_until=7)]
    assert processed_until(rows, ["a"], NOW) == 7  # whoever has found it
    assert processed_until(rows, ["a", "b"], NOW) is None
    assert processed_until([*rows, row(1, queue="b", processed_until=6)], ["a", "b"], NOW) == 6
    assert processed_until([*rows, row(1, queue="b", processed_until=0)], ["a", "b"], NOW) is None
    assert processed_until([*rows, row(1, queue="c", processed_until=1)], ["a"], NOW) == 7
    gone = row(1, queue="a", processed_until=8, phase=Phase.GONE, seen_at=9)
    assert processed_until([*rows, gone], ["a"], NOW) == 8  # it stays true
    assert processed_until(rows, [], NOW) is None
    assert processed_until([], ["a"], NOW) is None


def test_nothing_is_known_of_a_time_to_come() -> None:
    """A clock that was set back, or the one of a standby that took over."""
    assert processed_until([row(1, processed_until=NOW + 1)], ["reports"], NOW) is None
    assert processed_until([row(1, processed_until=NOW)], ["reports"], NOW) == NOW
    rows = [row(1, processed_until=NOW + 3_600_000), row(2, processed_until=NOW - 1)]
    assert processed_until(rows, ["reports"], NOW) == NOW - 1
