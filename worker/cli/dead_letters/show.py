"""The command that shows one dead letter: show."""

from typing import Annotated

import typer

from worker.cli.common import Json, print_json, ready_database, run_async, screen, utf8
from worker.cli.dead_letters import tables
from worker.cli.dead_letters.options import LARGEST_ID
from worker.config.settings import Settings
from worker.errors import DeviceopsError, SettingsError
from worker.model.text import shown
from worker.store import dead_letters, documents
from worker.store.selection import Selection

MOST_NAMED = 10
"""Maximum number of dead letters that an error names."""

app = typer.Typer(add_completion=False)


@app.command()
def show(
    id_: Annotated[
        int | None, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="The dead letter's id.")
    ] = None,
    message_id: Annotated[
        str | None, typer.Option(parser=utf8, metavar="TEXT", help="The AMQP message id that it has, instead.")
    ] = None,
    json: Json = False,
) -> None:
    """Show one dead letter: why, every attempt, the body, the AMQP properties and headers, where it came from."""
    if (id_ is None) == (message_id is None):
        raise SettingsError("name one dead letter: by its id, or with --message-id")
    found = run_async(_show(Settings.load(), id_, message_id))
    if json:
        print_json(found)
    else:
        screen.print(tables.dead_letter(found))


async def _show(settings: Settings, id_: int | None, message_id: str | None) -> documents.DeadLetterDetails:
    async with ready_database(settings) as database, database.read() as connection:
        if id_ is None:
            selection = Selection(message_id=message_id, status=None)
            ids = [letter.id for letter in await dead_letters.find(connection, selection, MOST_NAMED)]
            if len(ids) != 1:
                which = f": show one of {', '.join(map(str, ids))}" if ids else ""
                number = "more than one dead letter has" if ids else "no dead letter has"
                raise DeviceopsError(f"{number} the message id {shown(message_id)}{which}")
            [id_] = ids
        found = await dead_letters.get(connection, id_)
    if found is None:
        raise DeviceopsError(f"dead letter {id_} is unknown")
    return found
