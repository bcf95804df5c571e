"""Selection of dead letters by query parameters or a request body, made from `worker.store.selection.FILTERS`."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any, Self

from fastapi import Depends, Query
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    StrictBool,
    StringConstraints,
    create_model,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue

from worker.model.contract import Moment
from worker.model.numbers import Integral
from worker.model.outcomes import Status
from worker.model.text import shown
from worker.store.selection import FILTERS, Filter, Selection

MAX_IDS = 10_000
LARGEST_ID = 2**53 - 1
"""The largest integer that every JSON library reads exactly (RFC 8259, section 6)."""

_NAMES = ("ids", *(each.name for each in FILTERS))
_SELECTS: list[JsonValue] = [{"required": [name]} for name in _NAMES]
_SELECTS += [{"required": ["all"], "properties": {"all": {"const": True}}}]
"""JSON Schema of a body that selects something."""
_TYPES: Mapping[Any, Any] = {datetime: Moment}
"""Validated types for the types of filters; others stand for themselves."""
_Id = Annotated[int, Field(strict=True, ge=1, le=LARGEST_ID), Integral]


class _NeverNull:
    """Marks a field that may be omitted, but must not be null."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        stated: list[JsonSchemaValue] = handler(schema)["anyOf"]
        return next(shape for shape in stated if shape != {"type": "null"})


class StatusOrAll(StrEnum):
    """A status of dead letters, or `all`."""

    OPEN = "open"
    RESOLVED = "resolved"
    DISCARDED = "discarded"
    ALL = "all"


def type_of(each: Filter) -> Any:
    """The type that validates the value of a filter."""
    if each.type is str:
        return Annotated[str, StringConstraints(min_length=1, max_length=each.longest, pattern=r"^[^\x00]*$")]
    return _TYPES.get(each.type, each.type)


def _selection(status: StatusOrAll, **filters: Any) -> Selection:
    return Selection(status=None if status is StatusOrAll.ALL else Status(status), **filters)


def _parameter(name: str, type_: Any, description: str, default: object) -> Parameter:
    annotation = Annotated[type_, Query(description=description)]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_selection.__signature__ = Signature(  # type: ignore[attr-defined]  # read by FastAPI
    [
        *(_parameter(each.name, type_of(each) | None, each.help, None) for each in FILTERS),
        _parameter("status", StatusOrAll, "Status of the dead letters.", StatusOrAll.OPEN),
    ],
    return_annotation=Selection,
)

Selected = Annotated[Selection, Depends(_selection)]


def _has_no_nulls(body: object) -> object:
    if isinstance(body, dict) and (empty := [name for name, value in body.items() if value is None]):
        raise ValueError(f"{shown(empty[0])} is null: omit it")
    return body


if TYPE_CHECKING:

    class _Filters(BaseModel):
        """The filters as fields of a body."""
else:
    _Filters = create_model(
        "_Filters",
        ids=(Annotated[Annotated[list[_Id], Field(max_length=MAX_IDS)] | None, _NeverNull()], None),
        **{each.name: (Annotated[type_of(each) | None, _NeverNull()], None) for each in FILTERS},
    )


class DeadLetterSelection(_Filters):
    """Open dead letters, by id, by filters, or all of them with `all`."""

    model_config = ConfigDict(
        extra="forbid",  # a misspelt filter must not select more than intended
        json_schema_extra={"anyOf": _SELECTS},
    )

    all: StrictBool = False
    limit: Annotated[
        int, Field(strict=True, ge=1, le=MAX_IDS, description="Maximum number, oldest first."), Integral
    ] = 1_000

    _nulls = model_validator(mode="before")(_has_no_nulls)

    @model_validator(mode="after")
    def selects_something(self) -> Self:
        """Require ids, a filter or `all`, so that nothing selects everything by accident."""
        if not self.all and all(getattr(self, name) is None for name in _NAMES):
            raise ValueError("nothing is selected: give ids, a filter, or all")
        return self

    def selection(self) -> Selection:
        """The selection of open dead letters for the database."""
        values = {name: getattr(self, name) for name in _NAMES}
        return Selection(**values | {"ids": None if values["ids"] is None else sorted(set(values["ids"]))})
