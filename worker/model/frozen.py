"""Frozen for the type checker, plain at run time."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_T]) -> type[_T]:
    """A dataclass with slots whose fields mypy treats as read-only.

    `dataclass(frozen=True)` sets each field through `object.__setattr__`: a microsecond for a message of seventeen
    fields, of some forty that a report takes in all.
    """
    return dataclass(slots=True)(cls)
