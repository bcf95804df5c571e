"""The command that removes what is no longer kept: prune."""

from datetime import timedelta

import typer

from worker.cli import tables
from worker.cli.common import Json, Yes, configure_logging, confirm, print_json, ready_database, run_async, screen
from worker.config.settings import Settings
from worker.dead_letters.retention import Retention

app = typer.Typer(add_completion=False)


@app.command()
def prune(yes: Yes = False, json: Json = False) -> None:
    """Remove what the settings DEVICEOPS_KEEP_… no longer keep, in small transactions; workers may run."""
    settings = Settings.load()
    retention = Retention(
        closed=_days(settings.keep_dead_letters),
        bodies=_days(settings.keep_bodies),
        activity=_days(settings.keep_activity),
    )
    configure_logging(settings)
    if retention != Retention():
        confirm("Remove for good what the settings DEVICEOPS_KEEP_… no longer keep?", yes=yes)
    pruned = run_async(prune_past(settings, retention))
    if json:
        print_json(pruned)
    elif retention == Retention():
        screen.print("everything is kept for ever: set DEVICEOPS_KEEP_… (see `deviceops check`)")
    else:
        screen.print(tables.numbers(pruned))


async def prune_past(settings: Settings, retention: Retention) -> dict[str, int]:
    """Prune with a progress bar; `dead-letters prune` does it too."""
    async with ready_database(settings) as opened:
        with tables.counting("pruning", None) as progress:
            return await retention.prune(opened, progress)


def _days(number: float | None) -> timedelta | None:
    return None if number is None else timedelta(days=number)
