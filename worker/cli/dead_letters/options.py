"""Options that select dead letters, the same for every command; made from `worker.store.selection.FILTERS`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.cli import tables
from worker.cli.common import notices, ready_database, utf8
from worker.cli.times import moment
from worker.config.settings import Settings
from worker.dead_letters.paging import OnProgress
from worker.errors import DeviceopsError, SettingsError
from worker.model.outcomes import Status
from worker.store import dead_letters
from worker.store.database import Database
from worker.store.selection import FILTERS, Filter, Selection

LARGEST_ID = 2**63 - 1


def _whole_uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a UUID: give the whole id") from None


def _status(text: str) -> Status | None:
    if text not in (*Status, "all"):
        raise typer.BadParameter(f"{text!r} is not one of {', '.join([*Status, 'all'])}")
    return None if text == "all" else Status(text)


Id = Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="Id of the dead letter.")]
Limit = Annotated[int | None, typer.Option(min=1, max=10**12, help="Maximum number, oldest first.")]

_Ids = Annotated[
    list[int] | None, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="Ids of dead letters.")
]
_IdOption = Annotated[
    list[int] | None,
    typer.Option("--id", min=1, max=LARGEST_ID, help="An id, as an option; may be repeated."),
]


def _option(each: Filter) -> Any:
    """The option of a filter, by the type of its value."""
    names = f"--{each.option}"
    if each.type is str:
        return Annotated[str | None, typer.Option(names, parser=utf8, metavar="TEXT", help=each.help)]
    if each.type is datetime:
        help_ = f"{each.help.removesuffix('.')}: a time (UTC), or an age such as 2h."
        return Annotated[datetime | None, typer.Option(names, parser=moment, metavar="TIME", help=help_)]
    if each.type is UUID:
        return Annotated[UUID | None, typer.Option(names, parser=_whole_uuid, metavar="UUID", help=each.help)]
    return Annotated[each.type | None, typer.Option(names, help=each.help)]


_FILTERS = {each.name: _option(each) for each in FILTERS}
_Status = Annotated[
    str, typer.Option(metavar="|".join([*Status, "all"]), help="Status of the dead letters.", show_default=True)
]
_All = Annotated[bool, typer.Option("--all", help="All of them; required if nothing else selects.")]


def selecting(changing: Status | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options to a command, and pass it the resulting `selection`.

    A command that changes dead letters of the status `changing` requires ids, a filter or --all; without any it
    is a usage error.
    """
    options = {"ids": _Ids, "id_": _IdOption, **_FILTERS}
    options |= {"status": _Status} if changing is None else {"all_": _All}
    defaults: dict[str, object] = {"status": Status.OPEN.value, "all_": False}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_selection(
            *,
            ids: list[int] | None,
            id_: list[int] | None,
            status: str = "all",
            all_: bool = False,
            **others: Any,
        ) -> None:
            selection = Selection(
                ids=sorted({*(ids or ()), *(id_ or ())}) or None,
                status=_status(status) if changing is None else changing,
                **{name: others.pop(name) for name in _FILTERS},
            )
            if changing is not None and selection.is_everything and not all_:
                raise SettingsError("nothing is selected: give ids, a filter, or --all")
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


async def check_ids(
    connection: AsyncConnection, selection: Selection, hint: str, *, needs_all: bool = True
) -> None:
    """Print a notice, which ends with `hint`, for each selected id whose dead letter has another status.

    Raises DeviceopsError on an unknown id; without `needs_all` only if all are unknown.
    """
    if not selection.ids:
        return
    named = await dead_letters.find(connection, Selection(selection.ids, status=None))
    statuses = {letter.id: letter.status for letter in named}
    unknown = [id_ for id_ in selection.ids if id_ not in statuses]
    if unknown and (needs_all or not statuses):
        raise DeviceopsError(f"dead letter {unknown[0]} is unknown")
    if unknown:
        notices.print(
            f"{len(unknown):,} of {len(selection.ids):,} ids are unknown, such as {unknown[0]}", style="yellow"
        )
    for id_ in selection.ids:
        if id_ in statuses and selection.status not in (None, statuses[id_]):
            notices.print(f"dead letter {id_} is {statuses[id_]}: {hint}", style="yellow")


@asynccontextmanager
async def selected(
    settings: Settings, selection: Selection, limit: int | None, doing: str
) -> AsyncIterator[tuple[Database, OnProgress]]:
    """Open the database and a progress bar for the selected dead letters. Raises DeviceopsError on unknown ids."""
    async with ready_database(settings) as database:
        async with database.read() as connection:
            count = await dead_letters.count(connection, selection)
            await check_ids(connection, selection, "left alone")
        with tables.counting(doing, min(count, limit or count)) as progress:
            yield database, progress
