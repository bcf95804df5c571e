"""Selection of dead letters. A filter is one field of `Selection`; SQL, command line and API are derived from it.

The command line makes an option of each filter, the HTTP API a query parameter and a key of the request bodies.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, true

from worker.model.causes import MASK
from worker.model.outcomes import Reason, Status
from worker.store.tables import dead_letters

MAX_DETAIL = 500
"""Characters of the detail that is looked for."""

_c = dead_letters.c


class _By(NamedTuple):
    """Declares a field of `Selection` as a filter."""

    help: str
    condition: Callable[[Any], ColumnElement[bool]]
    option: str = ""
    longest: int = 255


def like(masked: str) -> str:
    """The pattern of LIKE, with backslash as its escape, for a text in which masks stand for any text.

    SQLite does not distinguish A to Z from a to z in it.
    """
    literals = (re.sub(r"[\\%_]", r"\\\g<0>", each) for each in MASK.split(masked))
    return "%".join(literals)


def has_detail(column: ColumnElement[str], masked: str) -> ColumnElement[bool]:
    """Whether a detail is the one that is looked for, in which masks stand for any text."""
    return column.like(like(masked), escape="\\") if MASK.search(masked) else column == masked


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions that the selected dead letters meet, all of them; None sets no condition.

    A filter is one field: the type of its value, its help, its SQL, and the name of its option if that differs.
    """

    ids: Collection[int] | None = None
    reason: Annotated[Reason | None, _By("Reason of the rejection.", lambda value: _c.reason == value)] = None
    operation_id: Annotated[
        UUID | None,
        _By("Operation that the message names.", lambda value: _c.operation_id == value, "operation"),
    ] = None
    device_id: Annotated[
        UUID | None, _By("Device that the message names.", lambda value: _c.device_id == value, "device")
    ] = None
    service_id: Annotated[
        str | None,
        _By("Service that the message names as its sender.", lambda value: _c.service_id == value, "service"),
    ] = None
    detail: Annotated[
        str | None,
        _By(
            "Detail; masks in it, such as `<text>` and `<number>`, stand for any text.",
            lambda value: has_detail(_c.detail, value),
            longest=MAX_DETAIL,
        ),
    ] = None
    message_id: Annotated[str | None, _By("Message id, exactly.", lambda value: _c.message_id == value)] = None
    since: Annotated[
        datetime | None, _By("Received at or after this time.", lambda value: _c.received_at >= value)
    ] = None
    until: Annotated[datetime | None, _By("Received before this time.", lambda value: _c.received_at < value)] = (
        None
    )
    status: Status | None = Status.OPEN

    @property
    def is_everything(self) -> bool:
        """Whether there is no condition but the status."""
        return replace(self, status=None) == Selection(status=None)

    def condition(self) -> ColumnElement[bool]:
        """The SQL condition."""
        found: ColumnElement[bool] = true()
        if self.ids is not None:
            # Literals in the statement's text: there may be more ids than a statement may have parameters.
            found &= _c.id.in_(bindparam("ids", list(self.ids), expanding=True, literal_execute=True))
        if self.status is not None:
            # A literal in the statement's text, so that a partial index can be used.
            found &= _c.status == bindparam("status", self.status.value, literal_execute=True)
        for each in FILTERS:
            if (value := getattr(self, each.name)) is not None:
                found &= each.condition(value)
        return found


class Filter(NamedTuple):
    """One filter, as the command line and the HTTP API read it."""

    name: str
    """The field of `Selection`, the query parameter, and the key of a body."""
    type: Any
    """Type of the value: an enumeration, UUID, str (from 1 character on) or datetime (aware)."""
    help: str
    """One sentence for `--help` and the OpenAPI document."""
    condition: Callable[[Any], ColumnElement[bool]]
    """Returns the SQL condition for a value."""
    option: str
    """The command line's option, without its dashes."""
    longest: int
    """Maximum number of characters of a str."""


def _declared() -> Iterator[Filter]:
    for name, hint in get_type_hints(Selection, include_extras=True).items():
        for by in getattr(hint, "__metadata__", ()):
            type_ = get_args(hint.__origin__)[0]  # without None
            yield Filter(name, type_, by.help, by.condition, by.option or name.replace("_", "-"), by.longest)


FILTERS = tuple(_declared())
"""The filters in the order of their declaration."""
