"""The options that select dead letters, the same for every command that works on them."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic import TypeAdapter, ValidationError

from worker.cli import tables
from worker.cli.common import notices, ready_database, utf8
from worker.config.settings import Settings
from worker.dead_letters.paging import Progress
from worker.errors import DeviceopsError, SettingsError
from worker.model.outcomes import Reason, Status
from worker.store import dead_letters
from worker.store.database import Database
from worker.store.dead_letters import Selection

LARGEST_ID = 2**63 - 1
LONGEST = timedelta(days=100_000)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_moment = TypeAdapter(datetime)


def age(text: str) -> timedelta:
    """A length of time such as 30m, 12h, 7d or 2w."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else LONGEST
    if length >= LONGEST:
        raise typer.BadParameter(f"{text!r} is not a length of time: a number and s, m, h, d or w, such as 7d")
    return length


def moment(text: str) -> datetime:
    """A time, RFC 3339 or a date, UTC if it says nothing else; or how long ago it was, such as 2h."""
    if text[-1:] in _UNITS:
        return datetime.now(UTC) - age(text)
    try:
        # Digits alone are seconds since 1970 to pydantic, and a mistake to us.
        found = _moment.validate_python("" if text.isdecimal() else text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValidationError, OverflowError):
        message = f"{text!r} is not a time: write 2026-01-31, 2026-01-31T08:00:00Z, or 2h for two hours ago"
        raise typer.BadParameter(message) from None


def _status(text: str) -> Status | None:
    if text not in (*Status, "all"):
        raise typer.BadParameter(f"{text!r} is not one of {', '.join([*Status, 'all'])}")
    return None if text == "all" else Status(text)


Id = Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="The dead letter's id.")]
Limit = Annotated[int | None, typer.Option(min=1, max=10**12, help="The oldest so many.")]

_Ids = Annotated[
    list[int] | None, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="Those with these ids.")
]
_IdOption = Annotated[
    list[int] | None,
    typer.Option("--id", min=1, max=LARGEST_ID, help="The same as an option; repeat it for more."),
]
_OPTIONS: dict[str, Any] = {
    "reason": Annotated[Reason | None, typer.Option(help="Why they were rejected.")],
    "operation": Annotated[UUID | None, typer.Option(help="The operation that they name.")],
    "device": Annotated[UUID | None, typer.Option(help="The device that they name.")],
    "service": Annotated[
        str | None, typer.Option(parser=utf8, metavar="TEXT", help="The service that they say they are from.")
    ],
    "message_id": Annotated[
        str | None, typer.Option(parser=utf8, metavar="TEXT", help="The AMQP message id that they have.")
    ],
    "since": Annotated[
        datetime | None,
        typer.Option(
            parser=moment, metavar="TIME", help="Received then or later: a time (UTC), or an age like 2h."
        ),
    ],
    "until": Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help="Received before: a time, or an age.")
    ],
}
_Status = Annotated[
    str, typer.Option(metavar="|".join([*Status, "all"]), help="Where they stand.", show_default=True)
]
_All = Annotated[bool, typer.Option("--all", help="Every one; needed if nothing else selects.")]


def selecting(changing: Status | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options, and pass it the `selection` that they make.

    A command that changes what stands at `changing` must be told which: without ids, filters or --all it is a
    usage error.
    """
    options = {"ids": _Ids, "id_": _IdOption, **_OPTIONS}
    options |= {"status": _Status} if changing is None else {"all_": _All}
    defaults: dict[str, object] = {"status": Status.OPEN.value, "all_": False}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_selection(
            *,
            ids: list[int] | None,
            id_: list[int] | None,
            reason: Reason | None,
            operation: UUID | None,
            device: UUID | None,
            service: str | None,
            message_id: str | None,
            since: datetime | None,
            until: datetime | None,
            status: str = "all",
            all_: bool = False,
            **others: Any,
        ) -> None:
            selection = Selection(
                ids=sorted({*(ids or ()), *(id_ or ())}) or None,
                reason=reason,
                operation_id=operation,
                device_id=device,
                service_id=service,
                message_id=message_id,
                since=since,
                until=until,
                status=_status(status) if changing is None else changing,
            )
            if changing is not None and selection.is_everything and not all_:
                raise SettingsError("nothing is selected: name ids, filter, or say --all")
            command(selection=selection, **others)

        own = [one for one in signature(command).parameters.values() if one.name != "selection"]
        given = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=kind)
            for name, kind in options.items()
        ]
        hints = {**{one.name: one.annotation for one in own}, **options, "return": None}
        keyword_only = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in own]
        with_selection.__signature__ = signature(command).replace(parameters=[*given, *keyword_only])  # type: ignore[attr-defined]
        with_selection.__annotations__ = hints
        return with_selection

    return decorate


@asynccontextmanager
async def selected(
    settings: Settings, selection: Selection, limit: int | None, doing: str
) -> AsyncIterator[tuple[Database, Progress]]:
    """The database, and a progress bar for the selected dead letters. Raises DeviceopsError on unknown ids."""
    async with ready_database(settings) as database:
        async with database.read() as connection:
            named = await dead_letters.find(connection, Selection(selection.ids or (), status=None))
            count = await dead_letters.count(connection, selection)
        standing = {letter.id: letter.status for letter in named}
        for id_ in selection.ids or ():
            if id_ not in standing:
                raise DeviceopsError(f"dead letter {id_} is unknown")
            if selection.status not in (None, standing[id_]):
                notices.print(f"dead letter {id_} is {standing[id_]}: left alone", style="yellow")
        with tables.counting(doing, min(count, limit or count)) as progress:
            yield database, progress
