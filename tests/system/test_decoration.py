"""Fields that play no part in a state, over HTTP."""

from typing import Any

import httpx
import pytest

from tests.support.command import Deviceops
from tests.support.sending import (
    DEVICES,
    OPERATIONS,
    announcement_body,
)

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
PATH = f"/v0/operations/{OPERATION}/devices/{DEVICE}/"
UNREADABLE_TIMES = [1722253298.24, 0, "", "yesterday", "2026-01-31", "2026-01-31T08:00:00", [], {"at": 1}, True]


def announcement(**more: object) -> dict[str, Any]:
    return announcement_body(OPERATION, [DEVICE], **more)


@pytest.mark.parametrize("value", UNREADABLE_TIMES, ids=str)
def test_over_http_too(api: httpx.Client, deviceops_at_server: Deviceops, value: object) -> None:
    for state in ("CREATED", "SUCCESS"):
        body = {"state": state, "service_id": "s", "occurred_at": value, "reason": 5, "operation_type": ""}
        assert api.put(PATH, json=body).headers["X-Verdict"] == "applied"

    shown = deviceops_at_server.out("device", str(OPERATION), str(DEVICE))
    assert "cannot be read" in " ".join(shown.split())
    announced = api.post("/v0/operations/", json=announcement(created_at=value, schedule_type="DAILY"))
    assert announced.status_code == 201
