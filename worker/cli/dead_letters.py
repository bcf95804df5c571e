"""Commands about what was rejected: dead-letters list and show."""

from typing import Annotated, Any
from uuid import UUID

import typer

from worker.cli import render
from worker.cli.wiring import Json, print_json, ready_database, run_async, screen
from worker.errors import DeviceopsError
from worker.outcomes import Reason, Status
from worker.settings import Settings
from worker.store import queries, views

app = typer.Typer(help="See what was rejected, and why.", no_args_is_help=True)


@app.command("list")
def list_(
    status: Annotated[
        str, typer.Option(metavar="|".join([*Status, "all"]), help="Where they stand.")
    ] = Status.OPEN,
    reason: Annotated[Reason | None, typer.Option(help="Why they were rejected.")] = None,
    operation: Annotated[UUID | None, typer.Option(help="The operation that they name.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=10**12, help="The oldest so many.")] = None,
    json: Json = False,
) -> None:
    """List dead letters, the oldest first; the open ones unless told otherwise."""
    if status not in (*Status, "all"):
        raise typer.BadParameter(f"{status!r} is not one of {', '.join([*Status, 'all'])}", param_hint="--status")
    wanted = None if status == "all" else Status(status)
    found = run_async(_list(Settings.load(), wanted, reason, operation, limit))
    if json:
        print_json(found)
    elif found:
        screen.print(render.dead_letters(found))
    else:
        screen.print("no dead letters")


async def _list(
    settings: Settings, status: Status | None, reason: Reason | None, operation: UUID | None, limit: int | None
) -> list[views.DeadLetter]:
    async with ready_database(settings) as database, database.read() as connection:
        return await queries.list_dead_letters(connection, status, reason, operation, limit)


@app.command()
def show(
    id_: Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="The dead letter's id.")],
    json: Json = False,
) -> None:
    """Show one dead letter: why, the body, the AMQP properties and headers, and where it came from."""
    found = run_async(_show(Settings.load(), id_))
    if json:
        print_json(found)
    else:
        screen.print(render.dead_letter(found))


async def _show(settings: Settings, id_: int) -> Any:
    async with ready_database(settings) as database, database.read() as connection:
        found = await queries.get_dead_letter(connection, id_)
    if found is None:
        raise DeviceopsError(f"dead letter {id_} is unknown")
    return found
