"""Which dead letters a page is about: the filters of the API, from an address, with what is wrong with them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from inspect import Parameter, Signature
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode

from fastapi import Depends, Query
from pydantic import TypeAdapter, ValidationError

from worker.api.filters import StatusOrAll, type_of
from worker.api.responses import ApiError
from worker.model.findings import problem
from worker.model.outcomes import Status
from worker.model.text import one_line
from worker.store.selection import FILTERS, Selection

_STATUS = "status"
_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {
    **{each.name: TypeAdapter(type_of(each)) for each in FILTERS},
    _STATUS: TypeAdapter(StatusOrAll),
}
_WORDS = {
    "operation_id": "operation",
    "device_id": "device",
    "service_id": "service",
    "message_id": "message id",
    "since": "received from",
    "until": "received before",
}


class Field(NamedTuple):
    """A field of a filter as a form has it."""

    value: str
    fault: str | None


@dataclass(frozen=True)
class Chosen:
    """The filters of an address."""

    selection: Selection
    """None of it is to be used if there are faults."""
    fields: Mapping[str, Field]

    @property
    def has_faults(self) -> bool:
        """Whether a filter cannot be read."""
        return any(field.fault for field in self.fields.values())

    def must_be(self, status: Status) -> Selection:
        """The selection, of which those with a status are meant. Raises ApiError (400) on faults."""
        faults = [f"{name}: {field.fault}" for name, field in self.fields.items() if field.fault]
        if faults:
            raise ApiError(HTTPStatus.BAD_REQUEST, "; ".join(faults))
        return replace(self.selection, status=status)


def _chosen(**given: str | None) -> Chosen:
    values: dict[str, Any] = {}
    fields: dict[str, Field] = {}
    for name, adapter in _ADAPTERS.items():
        text, fault = given[name] or "", None
        if text:
            try:
                values[name] = adapter.validate_python(text)
            except ValidationError as error:
                fault = one_line(problem(error.errors(include_url=False, include_context=False)[0]))
        fields[name] = Field(text, fault)
    status = values.pop(_STATUS, StatusOrAll.OPEN)
    selection = Selection(status=None if status is StatusOrAll.ALL else Status(status), **values)
    return Chosen(selection, fields)


_chosen.__signature__ = Signature(  # type: ignore[attr-defined]  # read by FastAPI
    [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, Query()])
        for name in _ADAPTERS
    ],
    return_annotation=Chosen,
)

ChosenLetters = Annotated[Chosen, Depends(_chosen)]
"""The filters of the request's address."""


def query_of(selection: Selection, *, with_status: bool = True) -> str:
    """The query string of a selection, each filter in its place; without `ids`."""
    values = {each.name: getattr(selection, each.name) for each in FILTERS}
    pairs = [(name, _text(value)) for name, value in values.items() if value is not None]
    if with_status and selection.status is not Status.OPEN:
        pairs.append((_STATUS, "all" if selection.status is None else selection.status.value))
    return urlencode(pairs)


def group_of(selection: Selection) -> str:
    """What notes on a selection are found by: its filters, whatever the status and the time."""
    return query_of(replace(selection, since=None, until=None), with_status=False)


def in_words(selection: Selection) -> str:
    """A selection as a phrase such as `open, reason conflict`."""
    values = {each.name: getattr(selection, each.name) for each in FILTERS}
    parts = ["open, resolved or discarded" if selection.status is None else selection.status.value]
    parts += [f"{_WORDS.get(name, name)} {_text(value)}" for name, value in values.items() if value is not None]
    return one_line(", ".join(parts))


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)
