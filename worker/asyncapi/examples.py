"""Example messages of a roll-out over three devices, and the outcome of each, in this order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from statemachine import Verdict
from worker.model.messages import ANNOUNCEMENT, REPORT, REPORTS
from worker.model.outcomes import Reason

Outcome = str
"""A verdict, `announced`, `duplicate`, or the reason of a dead letter."""

OPERATION = "497f6eca-6276-4993-bfeb-53cbbbba6f08"
FIRST, SECOND, THIRD = (
    "3bafab7b-4400-4bcf-8e6e-09f954699940",
    "8f2b1a52-1f44-4a0e-8f5a-6c2a9a2f7c11",
    "c61d9f0e-7f0b-4e52-9d3e-2a7d6a0f5b22",
)


@dataclass(frozen=True, slots=True)
class Example:
    """One message, its outcome after the messages before it, and why."""

    name: str
    type: str
    body: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    """One for each report of a bulk message."""
    because: str

    @property
    def message_id(self) -> str:
        """The AMQP property `type`."""
        return f"example-{self.name}"

    @property
    def summary(self) -> str:
        """The outcome, and why, in one line."""
        return f"{', '.join(self.outcomes)}: {self.because}"


def _report(device: str, state: str | int, **more: str) -> dict[str, Any]:
    return {
        "operation_id": OPERATION,
        "device_id": device,
        "state": state,
        "service_id": "drift-service",
        **more,
    }


EXAMPLES = (
    Example(
        "early",
        REPORT,
        _report(THIRD, "INITIATED"),
        [Reason.UNKNOWN_DEVICE_OPERATION],
        "parked until its device is registered, then taken up by itself",
    ),
    Example(
        "announcement",
        ANNOUNCEMENT,
        {
            "id": OPERATION,
            "operation_type": "CONVERGE",
            "schedule_type": "IMMEDIATE",
            "arguments": {"converge_with_provision": True},
            "created_at": "2026-01-31T07:59:00Z",
            "device_ids": [FIRST, SECOND],
            "device_count": 3,
            "timeouts": {"pending": 600, "step": 900, "total": 86400},
            "abort": {"failed_percent": 20, "min_settled": 100, "action": "cancel"},
        },
        ["announced"],
        "the operation is known now, and two of its three devices are registered",
    ),
    Example(
        "report",
        REPORT,
        _report(
            FIRST,
            "SUCCESS",
            operation_type="CONVERGE",
            reason="test",
            report_id="0b0f6f0e-3f6e-4f0e-9d53-1c6b1d6f2d11",
            occurred_at="2026-01-31T08:00:00Z",
        ),
        [Verdict.APPLIED],
        "the state moves up, and states on the way may be skipped",
    ),
    Example(
        "registration",
        REPORT,
        _report(THIRD, "CREATED"),
        [Verdict.APPLIED],
        "a report can register a device too; the one that was parked is applied with it",
    ),
    Example(
        "overtaken",
        REPORT,
        _report(FIRST, "PROCESSING"),
        [Verdict.LATE],
        "a later state came first; it is kept as history, and the state stays",
    ),
    Example(
        "code",
        REPORT,
        _report(FIRST, 50),
        [Verdict.REPEATED],
        "50 is SUCCESS, which the device has reached",
    ),
    Example(
        "sent-again",
        REPORT,
        _report(FIRST, "SUCCESS", report_id="0b0f6f0e-3f6e-4f0e-9d53-1c6b1d6f2d11"),
        ["duplicate"],
        "its report_id came before",
    ),
    Example(
        "bulk",
        REPORTS,
        {
            "reports": [
                _report(SECOND, "DISPATCHED", occurred_at="2026-01-31T08:00:01+00:00"),
                _report(SECOND, "FAILURE", reason="no answer from the device", code="NO_ANSWER"),
                _report(THIRD, "SUCCEEDED"),
            ]
        },
        [Verdict.APPLIED, Verdict.APPLIED, Verdict.APPLIED],
        "each report of a bulk message is judged on its own",
    ),
    Example(
        "contradiction",
        REPORT,
        _report(FIRST, "FAILURE"),
        [Reason.CONFLICT],
        "a device that has succeeded cannot have failed: a dead letter, for people to look at",
    ),
    Example(
        "other-type",
        REPORT,
        _report(SECOND, "PROCESSING", operation_type="REBOOT"),
        [Reason.OPERATION_TYPE_MISMATCH],
        "the operation is a CONVERGE",
    ),
    Example(
        "announced-again",
        ANNOUNCEMENT,
        {
            "id": OPERATION,
            "operation_type": "CONVERGE",
            "timeouts": {"step": 1800},
            "deadline": "2026-02-01T08:00:00Z",
            "abort": {"failed_percent": 10, "min_settled": 3, "action": "notify"},
        },
        ["announced"],
        "its timeouts and its abort threshold replace those of before; one of three devices has failed, which is "
        "beyond it",
    ),
)
