"""Retry: an operation for those device operations of another one that failed, in one transaction.

The new operation is registered as an announcement with the devices would be; its `operation_device_query` is the
link to the first one. It is created once: the same retry again finds it there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from statemachine import State
from worker.config.reporters import Reporters
from worker.model.causes import GROUPED
from worker.model.contract import Announcement
from worker.model.identity import NAMESPACE, device_operation_id
from worker.model.messages import Announced, Message, Origin
from worker.model.outcomes import Tally
from worker.model.text import shown
from worker.model.timing import AnnouncedAbort, AnnouncedTimeouts, moment
from worker.processing.backlog import ParkedReport, portions
from worker.processing.batch_log import log_aborts
from worker.processing.together import Together
from worker.store import batch as store
from worker.store import retries
from worker.store.database import Database
from worker.store.device_filter import DeviceFilter

RETRYABLE: Final = GROUPED
"""The states that can be retried: those of device operations that are settled and have not succeeded."""
FAILED: Final = frozenset({State.FAILURE, State.TIMEOUT})
"""The states that are retried unless others are named."""
TOGETHER: Final = 5_000
"""Device operations that are registered by one statement."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What is retried: the device operations of an operation that a filter finds, as another operation."""

    operation_id: UUID
    """The operation that is retried."""
    new_id: UUID
    """The operation that is created."""
    states: frozenset[State] = FAILED
    """Of RETRYABLE."""
    code: str | None = None
    service_id: str | None = None
    reason: str | None = None
    """These three are as for `DeviceFilter`."""
    key: str | None = None
    """Of the request: one for the same new operation that has it again is the same retry, whatever it says."""

    @property
    def filter(self) -> DeviceFilter:
        """The device operations that are retried."""
        return DeviceFilter(states=self.states, service_id=self.service_id, code=self.code, reason=self.reason)

    @property
    def link(self) -> dict[str, Any]:
        """The `operation_device_query` of the new operation."""
        named = {"code": self.code, "service_id": self.service_id, "reason": self.reason}
        return {
            "retry_of": str(self.operation_id),
            "state": [state.name for state in sorted(self.states)],
            **{name: value for name, value in named.items() if value is not None},
        }


class Obstacle(StrEnum):
    """Why nothing is retried."""

    UNKNOWN = "unknown"
    """There is no such operation."""
    SAME = "same"
    """The new operation is to be the first one."""
    TAKEN = "taken"
    """The new operation exists, and is not this retry."""
    NOTHING = "nothing"
    """The filter finds no device operation."""
    DENIED = "denied"
    """The sender may not announce operations of this type."""


class Refused(NamedTuple):
    """A retry that is not made; nothing has changed."""

    obstacle: Obstacle
    detail: str


class Retried(NamedTuple):
    """A retry whose operation exists."""

    is_new: bool
    """Whether it was created now, and not by the same retry before."""


async def retry_operation(
    database: Database,
    retry: Retry,
    origin: Origin,
    *,
    reporters: Reporters | None = None,
    note: Callable[[Tally], object] = id,
) -> Retried | Refused:
    """Create the operation of a retry, unless the same retry has created it before.

    `reporters` says who may announce, None for everyone; `note` receives the tally. Takes some 200 bytes of memory
    for a device. Raises the database's errors; then nothing has happened.
    """
    if retry.new_id == retry.operation_id:
        return Refused(Obstacle.SAME, "an operation cannot be the retry of itself")
    async with database.write() as connection:
        outcome = await _retry(connection, retry, origin, reporters)
    if isinstance(outcome, Tally):
        log_aborts(outcome)
        note(outcome)
        return Retried(is_new=True)
    return outcome


async def _retry(
    connection: AsyncConnection, retry: Retry, origin: Origin, reporters: Reporters | None
) -> Tally | Retried | Refused:
    now = datetime.now(UTC)
    created = await store.create_operations(connection, {retry.new_id: now})
    if not created:
        await store.wait_for_standbys(connection)  # what created it may not be on one yet
        keys = [] if retry.key is None else [(retry.new_id, retry.key)]
        if await store.announced_before(connection, keys):
            return Retried(is_new=False)
        return _compared(retry, await retries.query_of(connection, retry.new_id))
    outcome = await _register(connection, retry, origin, reporters, now)
    if isinstance(outcome, Refused):
        await store.withdraw(connection, (), created, ())
    return outcome


def _compared(retry: Retry, query: Mapping[str, Any] | None) -> Retried | Refused:
    """Whether an operation that exists, with its `operation_device_query`, is that of a retry."""
    if query == retry.link:
        return Retried(is_new=False)
    return Refused(Obstacle.TAKEN, f"operation {retry.new_id} exists, and is not {_in_words(retry)}")


async def _register(
    connection: AsyncConnection, retry: Retry, origin: Origin, reporters: Reporters | None, now: datetime
) -> Tally | Refused:
    """Register the devices for an operation that the transaction has created, and release what waits for them."""
    first = await retries.read_announced(connection, retry.operation_id)
    if first is None:
        return Refused(Obstacle.UNKNOWN, f"operation {retry.operation_id} is unknown")
    pairs = await _pairs(connection, retry)
    message = Message(b"", now, origin=lambda: origin, is_awaited=True)
    # An id of its own kind, in the history of each device operation, as an announcement's is.
    report_id = str(uuid5(NAMESPACE, f"retry {retry.new_id}"))
    key = None if retry.key is None else (retry.new_id, retry.key)
    announced = Announced(_announcement(retry, first, len(pairs)), key, report_id, now, message)
    if reporters is not None and (denial := reporters.check_announcement(announced)):
        return Refused(Obstacle.DENIED, denial[1])
    if not pairs:
        return Refused(
            Obstacle.NOTHING, f"operation {retry.operation_id} has no device operation {found_by(retry)}"
        )
    together = Together(connection, reporters, created=[retry.new_id])
    await together.process([announced])
    starts = range(0, len(pairs), TOGETHER)
    await together.register(announced, (pairs[start : start + TOGETHER] for start in starts))
    parked = [ParkedReport(*row) for row in await retries.lock_parked(connection, retry.new_id)]
    for portion in portions(sorted(parked, key=lambda each: (each.device_operation_id, each.id))):
        await together.release(portion)
    return await together.finish()


async def _pairs(connection: AsyncConnection, retry: Retry) -> Sequence[tuple[UUID, UUID]]:
    """The new device operations' ids, each with the device's: in the order in which rows are locked."""
    pairs: list[tuple[UUID, UUID]] = []
    async for devices in retries.devices(connection, retry.operation_id, retry.filter):
        pairs += [(device_operation_id(retry.new_id, device), device) for device in devices]
    return sorted(pairs, key=lambda pair: pair[0].bytes)


def _announcement(retry: Retry, first: Row[Any], devices: int) -> Announcement:
    """What announces the new operation: what was announced of the first one, but for moments that have passed."""
    is_ahead = first.schedule_end is None or first.schedule_end > first.clock
    return Announcement.model_construct(
        id=retry.new_id,
        operation_type=first.operation_type,
        schedule_type=first.schedule_type if is_ahead else None,
        schedule_args=first.schedule_args if is_ahead else None,
        operation_device_query=retry.link,
        arguments=first.arguments,
        device_count=devices,
        timeouts=first.timeouts and AnnouncedTimeouts.model_validate_json(first.timeouts),
        deadline=moment(first.deadline) if (first.deadline or 0) > first.clock else None,
        abort=first.abort and AnnouncedAbort.model_validate_json(first.abort),
    )


def _in_words(retry: Retry) -> str:
    return f"the retry of operation {retry.operation_id} for device operations {found_by(retry)}"


def found_by(retry: Retry) -> str:
    """The filter in words that follow "device operations"."""
    states = " or ".join(state.name for state in sorted(retry.states))
    named = {"code": retry.code, "service": retry.service_id, "reason": retry.reason}
    others = [f"{name} {shown(value)}" for name, value in named.items() if value is not None]
    return f"in {states}{' with ' if others else ''}{' and '.join(others)}"
