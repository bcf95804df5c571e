"""Which dead letters are meant: the parameters and the bodies that select them."""

from enum import StrEnum
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, JsonValue, StrictBool, model_validator
from pydantic.json_schema import JsonSchemaValue

from worker.model.contract import Integral, Moment, Name
from worker.model.outcomes import Reason, Status
from worker.model.text import shown
from worker.store.dead_letters import Selection

MAX_IDS = 10_000
LARGEST_ID = 2**53 - 1
"""The largest integer that every JSON library reads exactly (RFC 8259, section 6)."""

_FILTERS = ("ids", "reason", "operation_id", "device_id", "service_id", "since", "until")
_SELECTS: list[JsonValue] = [{"required": [name]} for name in _FILTERS]
_SELECTS += [{"required": ["all"], "properties": {"all": {"const": True}}}]
"""What selects something, each by itself, as JSON Schema."""
_Id = Annotated[int, Field(strict=True, ge=1, le=LARGEST_ID), Integral]


class _NeverNull:
    """Marks what may be left out, though null is not a way to say so."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        stated: list[JsonSchemaValue] = handler(schema)["anyOf"]
        return next(shape for shape in stated if shape != {"type": "null"})


_T = TypeVar("_T")
_Filter = Annotated[_T | None, _NeverNull()]


class StatusOrAll(StrEnum):
    """Where dead letters stand, or anywhere."""

    OPEN = "open"
    RESOLVED = "resolved"
    DISCARDED = "discarded"
    ALL = "all"


def _selection(
    reason: Annotated[Reason | None, Query(description="Why they were rejected.")] = None,
    operation_id: Annotated[UUID | None, Query(description="The operation that they name.")] = None,
    device_id: Annotated[UUID | None, Query(description="The device that they name.")] = None,
    service_id: Annotated[Name | None, Query(description="The service that they say they are from.")] = None,
    since: Annotated[Moment | None, Query(description="Received then or later.")] = None,
    until: Annotated[Moment | None, Query(description="Received before.")] = None,
    status: Annotated[StatusOrAll, Query(description="Where they stand.")] = StatusOrAll.OPEN,
) -> Selection:
    return Selection(
        reason=reason,
        operation_id=operation_id,
        device_id=device_id,
        service_id=service_id,
        since=since,
        until=until,
        status=None if status is StatusOrAll.ALL else Status(status),
    )


Selected = Annotated[Selection, Depends(_selection)]


def _has_no_nulls(body: object) -> object:
    if isinstance(body, dict) and (empty := [name for name, value in body.items() if value is None]):
        raise ValueError(f"{shown(empty[0])} is null: leave it out")
    return body


class Selecting(BaseModel):
    """Which open dead letters are meant: by id, by what they have in common, or with `all`, every one."""

    model_config = ConfigDict(
        extra="forbid",  # a filter that is misspelt must not select what it was to leave out
        json_schema_extra={"anyOf": _SELECTS},
    )

    ids: _Filter[Annotated[list[_Id], Field(max_length=MAX_IDS)]] = None
    reason: _Filter[Reason] = None
    operation_id: _Filter[UUID] = None
    device_id: _Filter[UUID] = None
    service_id: _Filter[Name] = None
    since: _Filter[Moment] = None
    until: _Filter[Moment] = None
    all: StrictBool = False
    limit: Annotated[int, Field(strict=True, ge=1, le=MAX_IDS, description="The oldest so many."), Integral] = (
        1_000
    )

    _nulls = model_validator(mode="before")(_has_no_nulls)

    @model_validator(mode="after")
    def selects_something(self) -> Self:
        """Never everything by accident."""
        if not self.all and all(getattr(self, name) is None for name in _FILTERS):
            raise ValueError("nothing is selected: name ids, filter, or say all")
        return self

    def selection(self) -> Selection:
        """The same for the database."""
        values = {name: getattr(self, name) for name in _FILTERS}
        return Selection(**values | {"ids": None if self.ids is None else sorted(set(self.ids))})
