"""What comes of an attempt, and of a delivery."""

from enum import StrEnum
from http import HTTPStatus
from typing import NamedTuple


class Answer(NamedTuple):
    """What came of an attempt."""

    status: int | None
    """None without an answer."""
    reason: str
    """Why it has failed, without secrets; empty if it has not."""
    asked: int = 0
    """Milliseconds that the receiver asks to wait."""

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken the message."""
        return not self.reason

    @property
    def switches_off(self) -> bool:
        """Whether the receiver wants no more messages."""
        return self.status == HTTPStatus.GONE


class Outcome(StrEnum):
    """What is counted: a message that was taken, an attempt that failed, a message that will not be sent."""

    DELIVERED = "delivered"
    FAILED = "failed"
    GIVEN_UP = "given_up"
    DROPPED = "dropped"
