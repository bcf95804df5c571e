"""Which policies of the broker endanger messages."""

from typing import Any

import pytest

from worker.amqp.policies import _threats


@pytest.mark.parametrize(
    ("policy", "keys"),
    [
        ({}, []),
        ({"max-length": 10}, []),
        ({"max-length": 10, "overflow": "reject-publish"}, []),
        ({"max-length": 10, "overflow": "drop-head"}, ["max-length", "overflow"]),
        ({"max-length-bytes": 10, "overflow": "reject-publish-dlx"}, ["max-length-bytes", "overflow"]),
        ({"delivery-limit": 100}, []),
        ({"delivery-limit": -1}, []),
        ({"delivery-limit": 99}, ["delivery-limit"]),
        ({"dead-letter-exchange": "elsewhere", "dead-letter-strategy": "at-most-once"}, []),
        ({"message-ttl": 0, "expires": 1}, ["expires", "message-ttl"]),
    ],
)
def test_a_policy_endangers_what_our_arguments_do_not_protect(policy: dict[str, Any], keys: list[str]) -> None:
    ours = {"x-overflow": "reject-publish"}
    assert [key for key, _ in _threats(policy, ours, is_reports=True)] == keys


def test_a_queue_of_an_older_version_is_endangered_by_a_length() -> None:
    assert [key for key, _ in _threats({"max-length": 10}, {}, is_reports=False)] == ["max-length"]
