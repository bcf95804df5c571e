"""Put dead letters away, and take them back: discard, restore."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

import typer

from worker.cli.common import Json, actor, configure_logging, print_json, run_async, screen, utf8
from worker.cli.dead_letters.options import Limit, selected, selecting
from worker.config.settings import Settings
from worker.dead_letters import discard as closing
from worker.errors import SettingsError
from worker.model.outcomes import Status
from worker.model.text import clean
from worker.store.dead_letters import Selection

app = typer.Typer()


@app.command()
@selecting(changing=Status.OPEN)
def discard(
    selection: Selection,
    because: Annotated[
        str, typer.Option(parser=utf8, metavar="TEXT", help="Why nobody needs them; kept with each.")
    ],
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Discard open dead letters, with a reason; they stay readable, and `restore` takes it back."""
    if not because.strip():
        raise SettingsError("--because: say why")
    _change("discarded", selection, limit, json, partial(closing.discard, because=clean(because)))


@app.command()
@selecting(changing=Status.DISCARDED)
def restore(selection: Selection, limit: Limit = None, json: Json = False) -> None:
    """Make discarded dead letters open again; a parked one is taken up if its registration has come meanwhile."""
    settings = Settings.load()
    _change("restored", selection, limit, json, partial(closing.restore, trust=settings.trust))


def _change(
    word: str, selection: Selection, limit: int | None, json: bool, change: Callable[..., Awaitable[int]]
) -> None:
    settings = Settings.load()
    configure_logging(settings)
    count = run_async(_change_selected(settings, selection, limit, change))
    if json:
        print_json({word: count})
    else:
        screen.print(f"dead letters {word}: {count:,}")


async def _change_selected(
    settings: Settings, selection: Selection, limit: int | None, change: Callable[..., Awaitable[int]]
) -> int:
    async with selected(settings, selection, limit, "marking") as (database, progress):
        return await change(database, selection, actor=actor(), limit=limit, progress=progress)
