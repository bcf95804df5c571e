"""The command that makes discarded dead letters open again: restore."""

from functools import partial

import typer

from worker.cli.common import Json
from worker.cli.dead_letters.marking import change_status
from worker.cli.dead_letters.options import Limit, selecting
from worker.config.settings import Settings
from worker.dead_letters import discard as closing
from worker.model.outcomes import Status
from worker.store.selection import Selection

app = typer.Typer(add_completion=False)


@app.command()
@selecting(changing=Status.DISCARDED)
def restore(selection: Selection, limit: Limit = None, json: Json = False) -> None:
    """Make discarded dead letters open again; a parked one is processed if its registration has come meanwhile."""
    settings = Settings.load()
    change_status("restored", selection, limit, json, partial(closing.restore, reporters=settings.reporters))
