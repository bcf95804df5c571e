"""Options that select device operations of an operation, and the same filters as parameters of the HTTP API."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer

from statemachine import State
from worker.cli import options
from worker.cli.common import utf8
from worker.cli.times import moment
from worker.model.contract import as_code
from worker.model.text import clean
from worker.store.device_filter import DeviceFilter


class Named(frozenset[State]):
    """The states that one option names."""


def states(parse: Callable[[str], State] = options.state) -> Callable[[str], Named]:
    """A parser of states that are separated by commas, as in the HTTP API."""
    return lambda text: Named(map(parse, text.split(",")))


def all_of(named: Iterable[Named] | None) -> frozenset[State] | None:
    """The states of all options, None without any."""
    return frozenset[State]().union(*named) if named else None


def _code(text: str) -> str:
    """Parse a code. Raises BadParameter."""
    try:
        return as_code(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


States = Annotated[
    list[Named] | None,
    typer.Option(
        "--state",
        parser=states(),
        metavar="STATE",
        help="Only those in this state: name or code; several by commas, or repeated.",
    ),
]
Service = Annotated[
    str | None,
    typer.Option(
        "--service",
        parser=utf8,
        metavar="TEXT",
        help="Only those that a report of this service moved to their state.",
    ),
]
Code = Annotated[
    str | None,
    typer.Option(
        "--code",
        parser=_code,
        metavar="TEXT",
        help="Only those that a report with this code moved to their state.",
    ),
]
Reason = Annotated[
    str | None,
    typer.Option(
        "--reason",
        parser=utf8,
        metavar="TEXT",
        help="Only those that did not succeed for this reason, without a code; numbers, ids and quoted text may "
        "differ.",
    ),
]
UpdatedAfter = Annotated[
    datetime | None,
    typer.Option(
        parser=moment, metavar="TIME", help="Only those updated at or after this time (UTC), or an age such as 2h."
    ),
]
UpdatedBefore = Annotated[
    datetime | None,
    typer.Option(
        parser=moment, metavar="TIME", help="Only those updated before this time (UTC), or an age such as 2h."
    ),
]


def chosen(
    named: Iterable[Named] | None,
    service: str | None,
    code: str | None,
    reason: str | None,
    updated_after: datetime | None,
    updated_before: datetime | None,
) -> DeviceFilter:
    """The filter of the options."""
    return DeviceFilter(
        all_of(named),
        service,
        code,
        None if reason is None else clean(reason),
        updated_after,
        updated_before,
    )


def parameters(chosen: DeviceFilter) -> Mapping[str, str]:
    """A filter as query parameters of the HTTP API."""
    found = {
        "state": None if chosen.states is None else ",".join(state.name for state in sorted(chosen.states)),
        "service_id": chosen.service_id,
        "code": chosen.code,
        "reason": chosen.reason,
        "updated_after": _time(chosen.updated_after),
        "updated_before": _time(chosen.updated_before),
    }
    return {name: value for name, value in found.items() if value is not None}


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
