"""The command that discards dead letters: discard."""

from functools import partial
from typing import Annotated

import typer

from worker.cli.common import Json, screen, utf8
from worker.cli.dead_letters import list as list_
from worker.cli.dead_letters.marking import change_status
from worker.cli.dead_letters.options import Limit, selecting
from worker.dead_letters import discard as closing
from worker.errors import SettingsError
from worker.model.outcomes import Status
from worker.model.text import clean
from worker.store.selection import Selection

app = typer.Typer(add_completion=False)


@app.command()
@selecting(changing=Status.OPEN)
def discard(
    selection: Selection,
    because: Annotated[
        str,
        typer.Option(
            parser=utf8,
            metavar="TEXT",
            help="The reason, recorded with each; needed without --dry-run.",
            show_default=False,
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be discarded; change nothing.")
    ] = False,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Discard open dead letters, with a reason; they stay readable, and `restore` takes it back."""
    if dry_run:
        list_.show_list(selection, limit, json, "left alone")
        if not json:
            screen.print("nothing was changed")
        return
    if not because.strip():
        raise SettingsError("--because: say why")
    change_status("discarded", selection, limit, json, partial(closing.discard, because=clean(because)))
