"""The wire contract: the models of reports, bulk reports and announcements."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema, to_json

from statemachine import SPELLINGS, State
from worker.model import timestamps
from worker.model.numbers import Integral, integral
from worker.model.state_names import unknown_state
from worker.model.text import clean, shown
from worker.model.timing import AnnouncedAbort, AnnouncedTimeouts, Timing, milliseconds

FIELD = "field"
"""Key in the context of a validation error: the field, for an error that a model's validator finds."""
MAX_REPORTS = 10_000
"""Reports in one bulk message."""
MAX_REASON = 4_096
"""Characters; a longer reason is cut, as a limit must never reject a final state."""


def as_state(value: object) -> State:
    """Parse a state in any accepted spelling. Raises ValueError."""
    value = integral(value)
    state = SPELLINGS.get(value) if isinstance(value, str | int) else None
    if state is None:
        raise ValueError(unknown_state(value))
    return state


def _storable(document: dict[str, Any]) -> dict[str, Any]:
    json.dumps(document, allow_nan=False)  # raises ValueError on NaN and infinities
    return document


_IS_LEFT_OUT = "cannot be read, and is left out"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An unreadable value of a field that does not affect any state."""

    value: object


def _or_left_out(value: Any, read: Callable[[Any], Any]) -> Any:
    try:
        return read(value)
    except ValueError:
        return LeftOut(value)


def _moment_if_readable(value: object) -> datetime | LeftOut | None:
    if value is None:
        return None
    try:
        return timestamps.as_moment(value)
    except ValueError:
        return LeftOut(value)


def _reason(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else to_json(value, inf_nan_mode="constants").decode()
    text = text[:MAX_REASON]
    return clean(text if text.isascii() else text.encode(errors="replace").decode()) or None


CODE = re.compile("[A-Za-z0-9._-]{1,64}")
"""A report's code, as a whole."""


def as_code(text: str) -> str:
    """A code as it is. Raises ValueError for what no report can have."""
    if not CODE.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a code: 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    return text


def _code_if_readable(value: object) -> str | LeftOut | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) and CODE.fullmatch(value) else LeftOut(value)


def _sent(value: object) -> object:
    """An unreadable value in a form that is unreadable again."""
    if not isinstance(value, LeftOut):
        return value
    return value.value if isinstance(value.value, int | float) else shown(value.value)


def _or_anything(schema: dict[str, Any], otherwise: str = _IS_LEFT_OUT) -> WithJsonSchema:
    """A schema that accepts everything and describes what is understood."""
    return WithJsonSchema({"anyOf": [schema, {"type": "null"}, {"description": f"Anything else {otherwise}."}]})


class _OrLeftOut:
    """Annotation: a value that the type rejects becomes `LeftOut`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(_or_left_out, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        found["anyOf"] = [*found["anyOf"], {"description": f"Anything else {_IS_LEFT_OUT}."}]
        return found


_HEX = "[0-9A-Fa-f]"
_HYPHENATED = f"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
_ANY_UUID = rf"^({_HYPHENATED}|{_HEX}{{32}}|urn:uuid:{_HYPHENATED}|\{{{_HYPHENATED}\}})$"

_NOT_EMPTY: dict[str, JsonValue] = {"type": "string", "minLength": 1}
_NAME: dict[str, JsonValue] = {"type": "string", "maxLength": 255, "pattern": r"^[^\x00]*$"}
_MOMENT = {"type": "string", "format": "date-time", "pattern": timestamps.PATTERN}

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
TypeName = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]
"""An operation's type; an empty one counts as none."""
Moment = Annotated[datetime, PlainValidator(timestamps.as_moment), WithJsonSchema(_MOMENT)]
MomentIfReadable = Annotated[
    datetime | LeftOut | None,
    PlainValidator(_moment_if_readable),
    PlainSerializer(_sent),
    _or_anything(_MOMENT),
]
Code = Annotated[
    str | LeftOut | None,
    PlainValidator(_code_if_readable),
    PlainSerializer(_sent),
    _or_anything({"type": "string", "pattern": f"^({CODE.pattern})?$"}),
]
CodeText = Annotated[
    str, AfterValidator(as_code), WithJsonSchema({"type": "string", "pattern": f"^{CODE.pattern}$"})
]
"""A code that is asked for."""
ReasonText = Annotated[
    str | None, PlainValidator(_reason), _or_anything({"type": "string"}, "is kept as its JSON")
]
Document = Annotated[dict[str, JsonValue], AfterValidator(_storable)]
Id = Annotated[UUID, Field(strict=False, json_schema_extra={"pattern": _ANY_UUID})]
Reported = Annotated[
    State,
    BeforeValidator(as_state),
    WithJsonSchema({"title": "State", "enum": list(SPELLINGS)}, mode="validation"),
]
"""A state by any accepted spelling."""


_T = TypeVar("_T")
_IfReadable = Annotated[_T | None, _OrLeftOut()]
_name = TypeAdapter(Name).validate_python


class Report(BaseModel):
    """A service's report of one device operation's state. Unknown fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    operation_id: Id
    device_id: Id
    state: Annotated[Reported, Field(description="A name, another accepted spelling of it, or its code.")]
    service_id: Annotated[Name, Field(description="Who reports.")]
    operation_type: Annotated[
        TypeName | None, Field(description="If given, it must be the operation's own, such as CONVERGE.")
    ] = None
    reason: Annotated[
        ReasonText, Field(description=f"For people. Beyond {MAX_REASON:,} characters it is cut.")
    ] = None
    code: Annotated[
        Code, Field(description="For machines, such as DISK_FULL: 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    ] = None
    report_id: Annotated[
        Any,
        Field(
            description="The same for the same report sent again, and no other's. Without it, or if it is empty, "
            "the AMQP message_id is the report's id, else a UUIDv5 of the body."
        ),
        _or_anything({"type": "string"}, "counts as none"),
    ] = None
    occurred_at: Annotated[
        MomentIfReadable,
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
                    "timeouts": {"pending": 600, "step": 900, "total": 86_400},
                    "abort": {"failed_percent": 20, "min_settled": 100, "action": "cancel"},
                }
            ],
            # As `_name` has it.
            "if": {"required": ["operation_type"], "properties": {"operation_type": _NOT_EMPTY}},
            "else": {
                "required": ["operation"],
                "properties": {"operation_type": {"enum": [None, ""]}, "operation": {**_NAME, **_NOT_EMPTY}},
            },
        },
    )

    id: Id
    operation_type: Annotated[TypeName | None, Field(description="Such as CONVERGE.")] = None
    operation: Annotated[
        Any, Field(description="The same, where operation_type is missing.", exclude=True, repr=False)
    ] = None
    schedule_type: _IfReadable[Literal["IMMEDIATE", "WINDOW"]] = None
    schedule_args: _IfReadable[Document] = None
    operation_device_query: _IfReadable[Document] = None
    arguments: _IfReadable[Document] = None
    reason: ReasonText = None
    created_at: _IfReadable[Moment] = None
    created_by: _IfReadable[Id] = None
    device_ids: list[Id] | None = None
    device_count: Annotated[int, Field(ge=0, lt=2**31), Integral] | None = None
    timeouts: Annotated[
        AnnouncedTimeouts | None,
        Field(description="When device operations that are not settled become TIMEOUT, in seconds."),
    ] = None
    deadline: Annotated[Moment | None, Field(description="The moment at which all of them do (RFC 3339).")] = None
    abort: Annotated[
        AnnouncedAbort | None, Field(description="When the operation is stopped as too many devices fail.")
    ] = None

    _left_out: dict[str, object] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _settle(self) -> Self:
        if not self.operation_type:
            try:
                self.__dict__["operation_type"] = _name(self.operation)
            except ValidationError:
                raise PydanticCustomError(
                    "operation_type",
                    "is missing, or is not text of 1 to 255 characters",
                    {FIELD: "operation_type"},
                ) from None
        for name, value in self.__dict__.items():
            if isinstance(value, LeftOut):
                self._left_out[name] = value.value
        self.__dict__.update(dict.fromkeys(self._left_out))
        return self

    @property
    def timing(self) -> Timing:
        """What it says of timeouts, as that is stored."""
        end: object = (self.schedule_args or {}).get("end_datetime")
        try:
            schedule_end = None if end is None else milliseconds(timestamps.as_moment(end))
        except ValueError:
            schedule_end = None
        return Timing(
            None if self.timeouts is None else self.timeouts.model_dump_json(exclude_none=True),
            None if self.deadline is None else milliseconds(self.deadline),
            schedule_end,
        )

    @property
    def left_out(self) -> dict[str, object]:
        """Unreadable fields, which do not affect any state."""
        return self._left_out


class Reports(BaseModel):
    """Many reports in one message. Each has its own verdict; an unreadable one does not affect the others."""

    model_config = ConfigDict(strict=True)
    reports: Annotated[list[Report], Field(max_length=MAX_REPORTS)]


class AnyReports(BaseModel):
    """A bulk message of which some reports may be unreadable."""

    model_config = ConfigDict(strict=True)
    reports: Annotated[
        list[Annotated[Report | Any, Field(union_mode="left_to_right")]], Field(max_length=MAX_REPORTS)
    ]
