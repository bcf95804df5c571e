"""Different idempotency keys are different ids over HTTP."""

from uuid import UUID

import httpx
import pytest

from tests.support.sending import (
    DEVICES,
    OPERATIONS,
)

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
NIL = str(UUID(int=0))


@pytest.mark.parametrize(("keys", "verdict"), [((NIL, NIL), "applied"), (("one", "one"), "duplicate")])
def test_an_idempotency_key_of_zeros_is_none(api: httpx.Client, keys: tuple[str, str], verdict: str) -> None:
    path = f"/v0/operations/{OPERATION}/devices/{DEVICE}/"
    answers = [
        api.put(path, json={"state": state, "service_id": "s"}, headers={"Idempotency-Key": key})
        for state, key in zip(("CREATED", "SUCCESS"), keys, strict=True)
    ]

    assert [answer.headers["X-Verdict"] for answer in answers] == ["applied", verdict]
