"""Fields that play no part in a state, as they are read."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.sending import (
    ANNOUNCEMENT,
    DEVICES,
    OPERATIONS,
    announcement_body,
    encoded,
    message,
    report_body,
)
from worker.model.messages import Announced, Incoming, Message, Rejected
from worker.model.parsing import parse

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]


def report(state: str, **more: object) -> dict[str, Any]:
    return report_body(OPERATION, DEVICE, state, **more)


def announcement(**more: object) -> dict[str, Any]:
    return announcement_body(OPERATION, [DEVICE], **more)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60.25Z", datetime(2017, 1, 1, microsecond=250_000, tzinfo=UTC)),
        ("2017-01-01T05:29:60+05:30", datetime(2017, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:60Z", datetime(9999, 12, 31, 23, 59, 59, 998_999, tzinfo=UTC)),
    ],
)
def test_a_leap_second_is_the_second_after_it(text: str, moment: datetime) -> None:
    [item] = parse(message(report("SUCCESS", occurred_at=text)))

    assert isinstance(item, Incoming)
    assert (item.at, item.note) == (moment.replace(microsecond=moment.microsecond), None)


@pytest.mark.parametrize(
    ("names", "type_"),
    [
        ({"operation_type": None, "operation": "CONVERGE"}, "CONVERGE"),
        ({"operation_type": "", "operation": "CONVERGE"}, "CONVERGE"),
        ({"operation_type": "CONVERGE", "operation": None}, "CONVERGE"),
        ({"operation_type": "CONVERGE", "operation": 5}, "CONVERGE"),
        ({"operation_type": "CONVERGE", "operation": "REBOOT"}, "CONVERGE"),
        ({"operation_type": None, "operation": ""}, None),
        ({"operation_type": ""}, None),
        ({"operation_type": 5, "operation": "CONVERGE"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_an_empty_or_null_operation_type_counts_as_none(names: dict[str, object], type_: str | None) -> None:
    [item] = parse(message({"id": str(OPERATION), **names}, ANNOUNCEMENT))

    if type_ is None:
        assert isinstance(item, Rejected)
        assert "operation_type" in item.detail
    else:
        assert isinstance(item, Announced)
        assert item.announcement.operation_type == type_


def test_what_plays_a_part_in_the_state_still_costs_it() -> None:
    wrong: list[Message] = [
        *(message(report("SUCCESS", **{name: 5})) for name in ("operation_id", "device_id", "service_id")),
        message(report("DONE")),
        message(report("SUCCESS", operation_type=5)),
        message(encoded(announcement(device_ids=5)), ANNOUNCEMENT),
        message(encoded(announcement(device_count=-1)), ANNOUNCEMENT),
    ]
    for each in wrong:
        assert [type(item) for item in parse(each)] == [Rejected], each.body
