"""Changes: what others are told, and how each is addressed. The bodies' models are the contract for listeners."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, NamedTuple
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, Field
from pydantic_core import to_json

from statemachine import AbortAction, Counters, OperationState, State
from worker.model.outcomes import Reason

MAX_BYTES = 250_000
"""Bytes of the body of one change, about: RabbitMQ 4 takes 16 MB, and readers hold hundreds at a time."""
MAX_KEY = 255
"""Bytes of a routing key."""
FIRST_IDS = 10
"""Dead letters that a change names."""
UNKNOWN = "_"
"""Part of a routing key for what is not known."""
SPECVERSION = "1.0"
"""Of CloudEvents."""


class Told(StrEnum):
    """What is told: the values of DEVICEOPS_CHANGES."""

    NONE = "none"
    OPERATIONS = "operations"
    ALL = "all"


class ChangeType(StrEnum):
    """Types of changes."""

    OPERATION_CHANGED = "operation.changed"
    OPERATION_ABORTED = "operation.aborted"
    DEVICE_OPERATIONS_CHANGED = "device-operations.changed"
    DEAD_LETTERS_ADDED = "dead-letters.added"


_told = Told.OPERATIONS
"""Global, as every transaction of a process has the same."""


def tell(told: Told) -> None:
    """Set what this process tells."""
    global _told
    _told = told


def told() -> Told:
    """What this process tells."""
    return _told


_State = Annotated[str, Field(json_schema_extra={"enum": [state.name for state in State]})]
_Sequence = Annotated[
    int,
    Field(
        ge=1,
        description="Counts the operation's changes, from 1 without a gap; those of one transaction share it.",
    ),
]


_Counters = Annotated[
    dict[str, int],
    Field(
        json_schema_extra={
            "required": list(Counters._fields),
            "properties": {name: {"type": "integer", "minimum": 0} for name in Counters._fields},
        }
    ),
]


class OperationChanged(BaseModel):
    """An operation's counters, state or description have changed; one for an operation and transaction."""

    operation_id: UUID
    operation_type: str | None = Field(description="null while it is not known")
    sequence: _Sequence
    state: OperationState
    before: OperationState | None = Field(description="the state before; null of a new operation")
    counters: _Counters = Field(description="all device counters of the operation")
    at: AwareDatetime


class OperationAborted(BaseModel):
    """An operation's abort threshold was crossed."""

    operation_id: UUID
    operation_type: str | None
    sequence: _Sequence
    action: AbortAction
    failed_percent: float
    min_settled: int
    settled: int = Field(description="settled device operations when it was crossed")
    failed: int = Field(description="failed ones among them")
    reason: str = Field(description="the same for people")
    at: AwareDatetime


class DeviceChange(BaseModel):
    """A device operation that is in another state after a transaction."""

    device_id: UUID
    state: _State
    before: _State | None = Field(description="the state before; null of a new device operation")
    reason: str
    code: str | None
    at: AwareDatetime = Field(description="when it reached the state, as it was reported")


class DeviceOperationsChanged(BaseModel):
    """The device operations of an operation that a transaction has moved; with DEVICEOPS_CHANGES=all only.

    Empty if the operation has changed and none of them. What would be too large is divided into parts.
    """

    operation_id: UUID
    sequence: _Sequence
    changes: list[DeviceChange]
    part: int = Field(1, ge=1, description="absent if there is one part only")
    parts: int = Field(1, ge=1, description="absent if there is one part only")


class DeadLettersAdded(BaseModel):
    """Reports were rejected, or parked: those of a transaction with the same reason, operation and service."""

    reason: Reason
    operation_id: UUID | None = Field(description="null where the message names none that is readable")
    service_id: str | None = Field(description="null where the message names none that is readable")
    count: int = Field(ge=1)
    ids: list[int] = Field(description=f"of the first {FIRST_IDS} dead letters")
    at: AwareDatetime


class ChangeKind(NamedTuple):
    """What there is to know of a type of changes."""

    name: ChangeType
    body: type[BaseModel]
    routing_key: str
    """Each part has its dots and spaces replaced by `_`."""
    told: Told
    """The least value of DEVICEOPS_CHANGES with which it is told."""
    summary: str


KINDS = {
    kind.name: kind
    for kind in (
        ChangeKind(
            ChangeType.OPERATION_CHANGED,
            OperationChanged,
            "operation.{state}.{operation_type}",
            Told.OPERATIONS,
            "an operation's state, counters or description have changed: one for an operation and transaction, "
            "whatever the number of reports",
        ),
        ChangeKind(
            ChangeType.OPERATION_ABORTED,
            OperationAborted,
            "operation.aborted.{operation_type}",
            Told.OPERATIONS,
            "an abort threshold was crossed, with the numbers",
        ),
        ChangeKind(
            ChangeType.DEVICE_OPERATIONS_CHANGED,
            DeviceOperationsChanged,
            "device-operations.{operation_type}",
            Told.ALL,
            "the device operations that a transaction has moved to another state: one for an operation and "
            "transaction, or several parts",
        ),
        ChangeKind(
            ChangeType.DEAD_LETTERS_ADDED,
            DeadLettersAdded,
            "dead-letters.{reason}",
            Told.OPERATIONS,
            "reports were rejected or parked: one for a transaction, reason, operation and service",
        ),
    )
}
"""The one table of what is told, which the contract, the pages and the publisher's routing keys are made from."""

BODIES = {kind.name: kind.body for kind in KINDS.values()}
"""The model of each type's body."""

OPERATION, DEAD_LETTERS = "operation", "dead-letters"
"""What a change is of, as change-data capture groups it."""


class Change(NamedTuple):
    """A row of the outbox; the names of the first columns are those that Debezium's router reads."""

    id: UUID
    """The message's id, the same in each copy."""
    aggregatetype: str
    aggregateid: str
    """The operation's id; of dead letters the reason."""
    type: ChangeType
    payload: str
    """The body, JSON."""
    routing_key: str
    sequence: int | None
    """None for dead letters, which have no order."""


class Moved(NamedTuple):
    """A device operation that a transaction has moved to another state."""

    device_id: UUID
    state: State
    before: State | None
    reason: str
    code: str | None
    at: datetime


def operation_changed(
    operation_id: UUID,
    operation_type: str | None,
    sequence: int,
    state: str,
    before: str,
    counters: Counters,
    at: datetime,
) -> Change:
    """The change of an operation's row; `before` is the state before, empty of a new operation."""
    body = {
        "operation_id": operation_id,
        "operation_type": operation_type,
        "sequence": sequence,
        "state": state,
        "before": before or None,
        "counters": counters._asdict(),
        "at": at,
    }
    return _of_operation(ChangeType.OPERATION_CHANGED, body, state=state)


def operation_aborted(body: OperationAborted) -> Change:
    """The change of a threshold that tripped."""
    return _of_operation(ChangeType.OPERATION_ABORTED, body.model_dump())


def device_operations_changed(
    operation_id: UUID, operation_type: str | None, sequence: int, moved: Sequence[Moved]
) -> Iterator[Change]:
    """The change of an operation's device operations, in several parts if it is large."""
    portions = list(_portions(map(_device_change, moved)))
    for number, portion in enumerate(portions, 1):
        part = f',"part":{number},"parts":{len(portions)}' if len(portions) > 1 else ""
        head = f'"operation_id":"{operation_id}","sequence":{sequence}'
        yield Change(
            uuid4(),
            OPERATION,
            str(operation_id),
            ChangeType.DEVICE_OPERATIONS_CHANGED,
            f'{{{head},"changes":[{",".join(portion)}]{part}}}',
            routing_key(ChangeType.DEVICE_OPERATIONS_CHANGED, operation_type=operation_type),
            sequence,
        )


def dead_letters_added(body: DeadLettersAdded) -> Change:
    """The change of dead letters that were added."""
    return Change(
        uuid4(),
        DEAD_LETTERS,
        body.reason,
        ChangeType.DEAD_LETTERS_ADDED,
        body.model_dump_json(),
        routing_key(ChangeType.DEAD_LETTERS_ADDED, reason=body.reason),
        None,
    )


@lru_cache(maxsize=4_096)
def routing_key(type_: ChangeType, **parts: str | None) -> str:
    """The routing key of a change; a part has no dots or spaces of its own, and the whole at most 255 bytes."""
    words = {name: _part(value) for name, value in parts.items()}
    return KINDS[type_].routing_key.format(**words).encode()[:MAX_KEY].decode(errors="ignore")


def _part(value: str | None) -> str:
    if not value:
        return UNKNOWN
    return "".join("_" if letter == "." or letter.isspace() else letter for letter in value)


def _of_operation(type_: ChangeType, body: dict[str, Any], **parts: str) -> Change:
    return Change(
        uuid4(),
        OPERATION,
        str(body["operation_id"]),
        type_,
        to_json(body).decode(),
        routing_key(type_, operation_type=body["operation_type"], **parts),
        body["sequence"],
    )


def _device_change(moved: Moved) -> str:
    return to_json(
        {
            "device_id": moved.device_id,
            "state": moved.state.name,
            "before": None if moved.before is None else moved.before.name,
            "reason": moved.reason,
            "code": moved.code,
            "at": moved.at,
        }
    ).decode()


def _portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of texts of about `MAX_BYTES` together; one empty list without any."""
    portion: list[str] = []
    size = 0
    for text in texts:
        if portion and size + len(text) > MAX_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(text)
        size += 4 * len(text) if not text.isascii() else len(text)
    yield portion
