"""The command that removes what is no longer kept: prune."""

from dataclasses import replace
from datetime import timedelta

import typer

from worker.cli import tables
from worker.cli.common import Json, Yes, configure_logging, confirm, print_json, ready_database, run_async, screen
from worker.config.settings import Settings
from worker.dead_letters.retention import Retention
from worker.store import audit

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
    keeps_all = retention == Retention()
    configure_logging(settings)
    if not keeps_all:
        confirm("Remove for good what the settings DEVICEOPS_KEEP_… no longer keep?", yes=yes)
    # As workers do by themselves; so nobody is asked about it.
    keep, limit = _days(settings.keep_changes), settings.changes_limit
    all_of_it = replace(retention, changes=keep, changes_limit=limit, thins_minutes=True, audit=audit.KEPT)
    pruned = run_async(prune_past(settings, all_of_it))
    if json:
        print_json(pruned)
    elif keeps_all:
        screen.print(
            f"old changes removed: {pruned['changes']:,}; hours thinned: {pruned['minutes']:,}; "
            f"entries of the audit log removed: {pruned['audit_log']:,}"
        )
        screen.print("everything else is kept for ever: set DEVICEOPS_KEEP_… (see `deviceops check`)")
    else:
        screen.print(tables.numbers(pruned))


async def prune_past(settings: Settings, retention: Retention) -> dict[str, int]:
    """Prune with a progress bar; `dead-letters prune` does it too."""
    async with ready_database(settings) as opened:
        with tables.counting("pruning", None) as progress:
            return await retention.prune(opened, progress)


def _days(number: float | None) -> timedelta | None:
    return None if number is None else timedelta(days=number)
