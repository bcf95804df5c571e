"""Server-sent events as they are sent, each encoded once."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from statemachine import OperationState
from worker.store import documents
from worker.store.change_log import Extent, LoggedChange
from worker.store.change_page import Missed

RETRY = b"retry: 2000\n\n"
"""Milliseconds after which a client connects again."""
ALIVE = b":\n\n"
"""A comment, so that nothing between takes the connection for dead."""


class OperationProgress(BaseModel):
    """Data of the event `operation`: an operation's state and counters, and the sequence of its last change."""

    id: UUID
    state: OperationState
    updated_at: AwareDatetime
    operation_stats: documents.OperationStats
    sequence: int = Field(description="of the operation's last change; the changes that follow have higher ones")


class Reset(BaseModel):
    """Data of the event `reset`: changes may have been missed, and the stream goes on from the end of the log."""

    reason: Literal["removed", "beyond_end"]
    message: str
    last_event_id: int = Field(description="the position after which the stream could not go on")
    first: int = Field(description="position of the first change that is kept")
    last: int = Field(description="position of the last change")


_MESSAGES = {
    Missed.REMOVED: "changes after {after} are no longer kept before {first}",
    Missed.BEYOND_END: "there is no position {after}: the log ends at {last}, the database may have been restored",
}


def of_change(change: LoggedChange) -> bytes:
    """The event of a change."""
    return f"id: {change.position}\nevent: {change.type}\ndata: {change.payload}\n\n".encode()


def of_operation(position: int, operation: documents.Operation, sequence: int) -> bytes:
    """The event of an operation's present state, which is not older than a position."""
    fields = {name: getattr(operation, name) for name in ("id", "state", "updated_at", "operation_stats")}
    progress = OperationProgress(**fields, sequence=sequence)
    return f"id: {position}\nevent: operation\ndata: {progress.model_dump_json()}\n\n".encode()


def of_reset(missed: Missed, after: int, log: Extent) -> bytes:
    """The event that says that what follows a position cannot be sent."""
    message = _MESSAGES[missed].format(after=after, first=log.first, last=log.last)
    data = Reset(reason=missed.value, message=message, last_event_id=after, first=log.first, last=log.last)
    return f"id: {log.last}\nevent: reset\ndata: {data.model_dump_json()}\n\n".encode()


def alive(position: int) -> bytes:
    """A comment, and the position from which a client that has received nothing for a while can go on."""
    return f":\nid: {position}\n\n".encode()
