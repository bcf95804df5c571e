"""The wire contract: what a report, a bulk of reports and an announcement may say (SPEC section 4)."""

import json
from datetime import UTC, datetime, timedelta
from reprlib import Repr
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
)

from statemachine import SPELLINGS, State

MAX_REPORTS = 10_000
"""Reports in one bulk message."""
MAX_REASON = 4_096
"""Characters; a longer reason is cut, because a limit must never lose a final state."""

_repr = Repr()
_repr.maxstring = _repr.maxother = 60
_REPLACED_NUL = "\N{REPLACEMENT CHARACTER}"


def shown(value: object) -> str:
    """A value from outside as it can stand in a one-line message: never long, never unprintable."""
    return _repr.repr(value)


def one_line(text: str) -> str:
    """Text from outside on one line: what is not printable is escaped, so that no terminal obeys it either."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def clean(text: str) -> str:
    """Text that every database keeps: PostgreSQL has no NUL character."""
    return text.replace("\0", _REPLACED_NUL) if "\0" in text else text


def _integral(value: object) -> object:
    # JSON knows one kind of number: 5.0 is the integer 5.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_state(value: object) -> State:
    """A state by any accepted spelling. Raises ValueError on what is none."""
    value = _integral(value)
    state = SPELLINGS.get(value) if isinstance(value, str | int) else None
    if state is None:
        raise ValueError(f"{shown(value)} is not a device-operation state such as SUCCESS or 50")
    return state


_FIRST = datetime.min.replace(tzinfo=UTC) + timedelta(milliseconds=1)
_LAST = datetime.max.replace(tzinfo=UTC) - timedelta(milliseconds=1)
"""The very first and the very last moment are infinities to PostgreSQL's driver; the first is Go's zero time."""


def _utc(moment: datetime) -> datetime:
    try:
        return min(max(moment.astimezone(UTC), _FIRST), _LAST)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


def _storable(document: dict[str, Any]) -> dict[str, Any]:
    json.dumps(document, allow_nan=False)  # raises ValueError on what JSON has no number for
    return document


def _rfc3339(value: object) -> object:
    # Pydantic alone would also take numbers and digits, as seconds since 1970.
    if not isinstance(value, str) or value[10:11] not in ("T", "t", " "):
        raise ValueError(f"{shown(value)} is not an RFC 3339 time such as 2026-01-31T08:00:00Z")
    return value


Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339), AfterValidator(_utc)]
ReasonText = Annotated[str, AfterValidator(lambda text: clean(text[:MAX_REASON]))]
Document = Annotated[dict[str, JsonValue], AfterValidator(_storable)]


Id = Annotated[UUID, Field(strict=False)]
Integral = BeforeValidator(_integral)


class Report(BaseModel):
    """A service's report of one device operation's state (SPEC section 4). Unknown fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    operation_id: Id
    device_id: Id
    state: Annotated[State, BeforeValidator(as_state)]
    service_id: Name
    operation_type: Name | None = None
    reason: ReasonText | None = None
    report_id: str | None = None
    occurred_at: Moment | None = None


class Announcement(BaseModel):
    """An operation with its descriptive fields and, possibly, the devices that it targets.

    `device_count` is the number of devices that the operation will have in all, for announcers that
    register them otherwise.
    """

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "497f6eca-6276-4993-bfeb-53cbbbba6f08",
                    "operation_type": "CONVERGE",
                    "schedule_type": "IMMEDIATE",
                    "arguments": {"converge_with_provision": True},
                    "device_ids": ["3bafab7b-4400-4bcf-8e6e-09f954699940"],
                }
            ]
        },
    )

    id: Id
    operation_type: Annotated[Name, Field(validation_alias=AliasChoices("operation_type", "operation"))]
    schedule_type: Literal["IMMEDIATE", "WINDOW"] | None = None
    schedule_args: Document | None = None
    operation_device_query: Document | None = None
    arguments: Document | None = None
    reason: ReasonText | None = None
    created_at: Moment | None = None
    created_by: Id | None = None
    device_ids: list[Id] | None = None
    device_count: Annotated[int, Field(ge=0, lt=2**31), Integral] | None = None


class Reports(BaseModel):
    """A bulk message whose reports are all readable: the fast way through."""

    model_config = ConfigDict(strict=True)
    reports: Annotated[list[Report], Field(max_length=MAX_REPORTS)]


class AnyReports(BaseModel):
    """A bulk message of which some reports may be unreadable."""

    model_config = ConfigDict(strict=True)
    reports: Annotated[list[Any], Field(max_length=MAX_REPORTS)]
