"""The command that shows one dead letter: show."""

import typer

from worker.cli.common import Json, print_json, ready_database, run_async, screen
from worker.cli.dead_letters import tables
from worker.cli.dead_letters.options import Id
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.store import dead_letters, documents

app = typer.Typer(add_completion=False)


@app.command()
def show(id_: Id, json: Json = False) -> None:
    """Show one dead letter: why, every attempt, the body, the AMQP properties and headers, where it came from."""
    found = run_async(_show(Settings.load(), id_))
    if json:
        print_json(found)
    else:
        screen.print(tables.dead_letter(found))


async def _show(settings: Settings, id_: int) -> documents.DeadLetterDetails:
    async with ready_database(settings) as database, database.read() as connection:
        found = await dead_letters.get(connection, id_)
    if found is None:
        raise DeviceopsError(f"dead letter {id_} is unknown")
    return found
