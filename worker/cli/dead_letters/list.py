"""The command that lists dead letters: list."""

from typing import Annotated

import typer

from worker.cli.common import Json, print_json, ready_database, run_async, screen
from worker.cli.dead_letters import tables
from worker.cli.dead_letters.options import Limit, check_ids, selecting
from worker.config.settings import Settings
from worker.store import dead_letters, documents
from worker.store.dead_letters import GroupBy
from worker.store.selection import Selection

SHOWN = 50
"""Default number of dead letters."""

ROOMY = 120
"""Columns of a terminal that has room for more."""

HINT = "--status all lists it"

app = typer.Typer(add_completion=False)


@app.command("list")
@selecting()
def list_(
    selection: Selection,
    group_by: Annotated[GroupBy | None, typer.Option(help="Count them instead.")] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List dead letters, the oldest first; open ones by default."""
    settings = Settings.load()
    if group_by is not None:
        groups = run_async(_groups(settings, selection, group_by, limit if json else limit or SHOWN))
        if json:
            print_json([tables.group_document(group) for group in groups])
        else:
            screen.print(tables.groups(groups) if groups else "no dead letters")
            if len(groups) == SHOWN and limit is None:
                screen.print(f"the largest {SHOWN:,}; --limit shows more", style="dim")
        return
    show_list(selection, limit, json)


def show_list(selection: Selection, limit: int | None, json: bool, hint: str = HINT) -> None:
    """Print dead letters, the oldest first; `hint` is about ids of dead letters with another status."""
    settings = Settings.load()
    found, count = run_async(_list(settings, selection, limit if json else limit or SHOWN, hint))
    if json:
        print_json(found)
    elif not found:
        screen.print("no dead letters")
    else:
        screen.print(tables.dead_letters(found, has_room=screen.width >= ROOMY))
        if len(found) < count:
            screen.print(f"the oldest {len(found):,} of {count:,}; --limit shows more", style="dim")


async def _list(
    settings: Settings, selection: Selection, limit: int | None, hint: str
) -> tuple[list[documents.DeadLetterSummary], int]:
    async with ready_database(settings) as database, database.read() as connection:
        await check_ids(connection, selection, hint, needs_all=hint != HINT)
        found = await dead_letters.find(connection, selection, limit)
        count = (
            len(found) if limit is None or len(found) < limit else await dead_letters.count(connection, selection)
        )
        return found, count


async def _groups(
    settings: Settings, selection: Selection, group_by: GroupBy, limit: int | None
) -> list[documents.Group]:
    async with ready_database(settings) as database, database.read() as connection:
        await check_ids(connection, selection, HINT, needs_all=False)
        return await dead_letters.count_by(connection, selection, group_by, limit)
