"""Documents of the HTTP API and of `--json`, in the shapes of the API reference."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, computed_field, field_serializer

from statemachine import Counters, OperationState, State, Verdict
from worker.model.minutes import MILLISECONDS
from worker.model.outcomes import Action, Reason, Status
from worker.model.pace import Course, pace
from worker.model.timing import moment

Result = TypeVar("Result")

LATEST_ACTIVITY = 100
"""Entries of an operation's history that its document has."""
OTHER_REASONS = "other"
"""The reason of the group that counts what exceeds the limit of groups."""
LATEST_ENTRIES = 100
"""Entries of a dead letter's history that its document has, in addition to its receipt."""

_State = Annotated[str, Field(json_schema_extra={"enum": [state.name for state in State]})]
_OperationState = Annotated[str, Field(json_schema_extra={"enum": list(OperationState)})]
_Verdict = Annotated[str, Field(json_schema_extra={"enum": [Verdict.APPLIED, Verdict.LATE, Verdict.REPEATED]})]
_OPERATION = "497f6eca-6276-4993-bfeb-53cbbbba6f08"
_DEVICE = "3bafab7b-4400-4bcf-8e6e-09f954699940"
_TIME = "2019-08-24T14:15:22Z"


class DeviceOperationActivity(BaseModel):
    """One state that was reported, and the earliest time at which a report says that it was reached."""

    device_operation_state: _State
    created_at: AwareDatetime


class DeviceOperation(BaseModel):
    """One device operation; its activity has an entry for each reached state, sorted by rank."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "cb4ede3c-a5d1-45e3-a9d2-fe83accbce52",
                    "operation_id": _OPERATION,
                    "device_id": _DEVICE,
                    "state": "CREATED",
                    "reason": "",
                    "created_at": _TIME,
                    "updated_at": _TIME,
                    "device_operation_activity": [{"device_operation_state": "CREATED", "created_at": _TIME}],
                }
            ]
        }
    )

    id: UUID
    operation_id: UUID
    device_id: UUID
    state: _State
    reason: str
    created_at: AwareDatetime
    updated_at: AwareDatetime
    device_operation_activity: list[DeviceOperationActivity]


class Page(BaseModel, Generic[Result]):
    """One page; `previous` and `next` are URLs of the adjacent pages, None at the ends."""

    count: int
    previous: str | None
    next: str | None
    results: list[Result]


@dataclass(slots=True)
class OperationActivity:
    """One state that an operation reached. A dataclass for speed: a page of operations may have 10,000."""

    operation_state: _OperationState
    created_at: AwareDatetime


class DeviceCounts(BaseModel):
    """Numbers of device operations."""

    resolved_device_count: int
    dispatched_device_count: int
    dispatch_failed_count: int
    failed_device_count: int
    success_device_count: int


class OperationStats(BaseModel):
    """An operation's counters."""

    device_operation_statuses_count: DeviceCounts


class Operation(BaseModel):
    """One operation. Missing text is empty, missing documents are `{}`, other missing values are null.

    `operation_activity` has the latest 100 states, oldest first.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _OPERATION,
                    "operation": "CONVERGE",
                    "state": "DISPATCHING",
                    "schedule_type": "IMMEDIATE",
                    "schedule_args": {},
                    "operation_device_query": {},
                    "arguments": {"converge_with_provision": True},
                    "reason": "",
                    "created_at": _TIME,
                    "created_by": "ee824cad-d7a6-4f48-87dc-e8461a9201c4",
                    "updated_at": _TIME,
                    "updated_by": "deea00dc-b6b6-4412-a483-26ac61e1f6fe",
                    "operation_activity": [{"operation_state": "DISPATCHING", "created_at": _TIME}],
                    "operation_stats": {
                        "device_operation_statuses_count": {
                            "resolved_device_count": 3,
                            "dispatched_device_count": 2,
                            "dispatch_failed_count": 0,
                            "failed_device_count": 0,
                            "success_device_count": 1,
                        }
                    },
                }
            ]
        }
    )

    id: UUID
    operation: str
    state: _OperationState
    schedule_type: str | None
    schedule_args: dict[str, Any]
    operation_device_query: dict[str, Any]
    arguments: dict[str, Any]
    reason: str
    created_at: AwareDatetime
    created_by: UUID | None
    updated_at: AwareDatetime
    updated_by: UUID | None
    operation_activity: list[OperationActivity]
    operation_stats: OperationStats


class ReasonGroup(BaseModel):
    """Device operations of one state with one cause: a code, else a reason without what differs between devices.

    `reason` is the reason with such parts masked, as in `no answer in <number> s`; of a code, the reason of one
    report. `reason` is `other` for what exceeds 1,000 groups of an operation.
    """

    state: _State
    code: str | None
    reason: str
    count: int
    first_at: AwareDatetime
    last_at: AwareDatetime


class SettledMinutes(BaseModel):
    """How many device operations settled in the `minutes` from `at` on: one, or 60 if that is above a day ago."""

    at: AwareDatetime
    minutes: int
    settled: int


class OperationProgress(BaseModel):
    """How an operation goes.

    `settled` of `resolved` registered device operations, `expected` as announced, null if not. `rate` is how many
    settle in a minute, lately, and `eta` when all will be settled, at that rate; 0 and null before anything has
    settled, once the operation is over, and while it is stalled. It is `stalled` if nothing has moved for longer
    than ten times its usual pause, and then not since `stalled_since`. `minutes` has those of the last 31 days in
    which any settled, by the database's clock.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "settled": 19,
                    "resolved": 300,
                    "expected": 300,
                    "rate": 9.5,
                    "eta": "2019-08-24T14:45:00Z",
                    "stalled": False,
                    "stalled_since": None,
                    "minutes": [
                        {"at": "2019-08-24T14:14:00Z", "minutes": 1, "settled": 12},
                        {"at": "2019-08-24T14:15:00Z", "minutes": 1, "settled": 7},
                    ],
                }
            ]
        }
    )

    settled: int
    resolved: int
    expected: int | None
    rate: float
    eta: AwareDatetime | None
    stalled: bool
    stalled_since: AwareDatetime | None
    minutes: list[SettledMinutes]

    @classmethod
    def of(cls, course: Course) -> Self:
        """The document of how an operation has gone."""
        found = pace(course)
        return cls(
            settled=course.counters.settled_device_count,
            resolved=course.counters.resolved_device_count,
            expected=course.expected,
            rate=float(f"{found.rate:.3g}"),
            eta=found.eta and found.eta.replace(microsecond=0),
            stalled=found.is_stalled,
            stalled_since=found.stalled_since,
            minutes=[
                SettledMinutes(at=moment(each.minute * MILLISECONDS), minutes=each.minutes, settled=each.number)
                for each in course.minutes
            ],
        )


class DeadLetterSummary(BaseModel):
    """A dead letter in a list."""

    id: int
    reason: Reason
    detail: str
    status: Status
    received_at: AwareDatetime
    message_id: str | None
    type: str | None
    operation_id: UUID | None
    device_id: UUID | None
    service_id: str | None
    attempts: int


class DeadLetterEntry(BaseModel):
    """One action on a dead letter and its outcome; `actor` is null for the worker itself.

    `outcome` is a verdict, `duplicate`, `announced`, the reason of the rejection, or a comment of the actor.
    """

    at: AwareDatetime
    actor: str | None
    action: Action
    outcome: str
    detail: str


class DeadLetterDetails(DeadLetterSummary):
    """A dead letter with all stored details.

    `current_state` is the state of the device operation that it names, null if that is not registered;
    `allowed_states` are the states that a report could move it to now.
    """

    resolved_at: AwareDatetime | None
    sent_at: AwareDatetime | None
    report_id: str | None
    corrects: int | None
    corrected_by: list[int]
    current_state: str | None
    allowed_states: list[str] | None
    history: list[DeadLetterEntry]
    exchange: str
    routing_key: str
    properties: dict[str, Any]
    headers: dict[str, Any]
    body: bytes
    body_removed_at: AwareDatetime | None

    @field_serializer("body")
    def body_text(self, body: bytes) -> str:
        """The body as text; bytes that are not UTF-8 are written as `\\xff`."""
        return body.decode(errors="backslashreplace")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def body_base64(self) -> str:
        """The body's bytes, exactly."""
        return b64encode(self.body).decode()


@dataclass(frozen=True, slots=True)
class Group:
    """Number of dead letters with a common value; `kind` is the name of the value."""

    kind: str
    value: str | UUID | None
    count: int
    oldest: AwareDatetime
    newest: AwareDatetime


@dataclass(frozen=True, slots=True)
class Parked:
    """Parked reports of an operation: number, number of stale ones, and when the oldest was received."""

    operation_id: UUID
    count: int
    stale: int
    oldest: AwareDatetime


@dataclass(frozen=True, slots=True)
class Backlog:
    """Totals of parked reports, and of those that are stale."""

    reports: int
    operations: int
    stale: int
    stale_operations: int
    oldest: AwareDatetime | None
    """When the oldest parked report was received."""


class Progress(NamedTuple):
    """Progress of an operation: all its counters, and the announced number of devices, if any."""

    counters: Counters
    expected: int | None

    @property
    def open(self) -> int:
        """The number of device operations that are not settled."""
        return self.counters.resolved_device_count - self.counters.settled_device_count

    @property
    def unregistered(self) -> int:
        """The number of announced devices that no device operation is registered for yet."""
        return max((self.expected or 0) - self.counters.resolved_device_count, 0)


class AcceptedReport(BaseModel):
    """One accepted report of a device operation: `applied`, `late` or `repeated`.

    `created_at` is when the state was reached: `occurred_at` of the report, else when it was sent or received.
    `note` names fields of the report that were ignored because they could not be parsed.
    """

    report_id: str
    state: _State
    verdict: _Verdict
    service_id: str
    reason: str
    code: str | None
    created_at: AwareDatetime
    note: str | None
