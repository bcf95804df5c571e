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
    WithJsonSchema,
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
"""The very first and the very last moment are infinities to PostgreSQL's driver; the first is Go's zero time.

What lies beyond them becomes them: .NET's zero time is that of its own zone, which may be before the year 1.
"""


def _utc(moment: datetime) -> datetime:
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        return _FIRST if moment < _FIRST else _LAST
    return moment if _FIRST <= moment <= _LAST else min(max(moment, _FIRST), _LAST)


def _storable(document: dict[str, Any]) -> dict[str, Any]:
    json.dumps(document, allow_nan=False)  # raises ValueError on what JSON has no number for
    return document


def _rfc3339(value: object) -> object:
    # Pydantic alone would also take numbers and digits, as seconds since 1970.
    if not isinstance(value, str) or value[10:11] not in ("T", "t", " "):
        raise ValueError(f"{shown(value)} is not an RFC 3339 time such as 2026-01-31T08:00:00Z")
    return value


_HEX = "[0-9A-Fa-f]"
_HYPHENATED = f"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
_ANY_UUID = rf"^({_HYPHENATED}|{_HEX}{{32}}|urn:uuid:{_HYPHENATED}|\{{{_HYPHENATED}\}})$"
_HOURS_AND_MINUTES = "([01][0-9]|2[0-3]):[0-5][0-9]"
_ANY_MOMENT = (
    "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]"
    f"{_HOURS_AND_MINUTES}(:[0-5][0-9]([.,][0-9]+)?)?"
    f"([Zz]|[-+\N{MINUS SIGN}]{_HOURS_AND_MINUTES.replace(':', ':?')})$"
)
"""For the schema, so that it takes what is taken: `format` says less, and few validators look at it."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
Moment = Annotated[
    AwareDatetime,
    Field(strict=False, json_schema_extra={"pattern": _ANY_MOMENT}),
    BeforeValidator(_rfc3339),
    AfterValidator(_utc),
]
ReasonText = Annotated[str, AfterValidator(lambda text: clean(text[:MAX_REASON]))]
Document = Annotated[dict[str, JsonValue], AfterValidator(_storable)]
Id = Annotated[UUID, Field(strict=False, json_schema_extra={"pattern": _ANY_UUID})]
Integral = BeforeValidator(_integral)
Reported = Annotated[
    State,
    BeforeValidator(as_state),
    WithJsonSchema({"title": "State", "enum": list(SPELLINGS)}, mode="validation"),
]
"""A state by any accepted spelling."""


class Report(BaseModel):
    """A service's report of one device operation's state (SPEC section 4). Unknown fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    operation_id: Id
    device_id: Id
    state: Annotated[Reported, Field(description="A name, another accepted spelling of it, or its code.")]
    service_id: Annotated[Name, Field(description="Who reports.")]
    operation_type: Annotated[
        Name | None, Field(description="If given, it must be the operation's own, such as CONVERGE.")
    ] = None
    reason: Annotated[
        ReasonText | None, Field(description=f"For people. Beyond {MAX_REASON:,} characters it is cut.")
    ] = None
    report_id: Annotated[
        str | None,
        Field(
            description="The same for the same report sent again, and no other's. Without it, or if it is empty, "
            "the AMQP message_id is the report's id, else a UUIDv5 of the body."
        ),
    ] = None
    occurred_at: Annotated[
        Moment | None,
        Field(description="When the state was reached (RFC 3339); else the AMQP timestamp, else when it came."),
    ] = None


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
    """Many reports in one message. Each has its own verdict, so an unreadable one spoils no other."""

    model_config = ConfigDict(strict=True)
    reports: Annotated[list[Report], Field(max_length=MAX_REPORTS)]


class AnyReports(BaseModel):
    """A bulk message of which some reports may be unreadable; those are left as they are."""

    model_config = ConfigDict(strict=True)
    reports: Annotated[
        list[Annotated[Report | Any, Field(union_mode="left_to_right")]], Field(max_length=MAX_REPORTS)
    ]
