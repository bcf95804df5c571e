"""What is published about one operation has one routing key, so that one partition gets all of it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from worker.amqp.publisher import routing_key
from worker.model.messages import ANNOUNCEMENT, REPORT, REPORTS, Message

OPERATION, OTHER = "497f6eca-6276-4993-bfeb-53cbbbba6f08", "2c1d1a4e-7a5b-4d0c-8a58-0f3a3f5f2b11"


def report(operation: str = OPERATION) -> dict[str, str]:
    return {
        "operation_id": operation,
        "device_id": "3bafab7b-4400-4bcf-8e6e-09f954699940",
        "state": "CREATED",
        "service_id": "drift-service",
    }


@pytest.mark.parametrize(
    ("body", "type_", "key"),
    [
        (report(), REPORT, OPERATION),
        (report(), None, OPERATION),
        ({**report(), "state": "SUCESS"}, REPORT, OPERATION),
        ({"id": OPERATION, "operation_type": "CONVERGE"}, ANNOUNCEMENT, OPERATION),
        ({"reports": [report(), report()]}, REPORTS, OPERATION),
        ({"reports": [report(), report(OTHER)]}, REPORTS, REPORTS),
        ("nothing", REPORT, REPORT),
        ("nothing", None, REPORT),
    ],
)
def test_the_routing_key_is_the_operation_if_the_message_is_about_one(
    body: Any, type_: str | None, key: str
) -> None:
    message = Message(json.dumps(body).encode(), datetime.now(UTC), "id", type_)
    assert routing_key(message) == key
