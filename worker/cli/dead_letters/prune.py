"""The command that removes closed dead letters for good: prune."""

from datetime import timedelta
from typing import Annotated

import typer

from worker.cli.common import Json, Yes, configure_logging, confirm, print_json, run_async, screen
from worker.cli.prune import prune_past
from worker.cli.times import age
from worker.config.settings import Settings
from worker.dead_letters.retention import Retention

app = typer.Typer(add_completion=False)


@app.command()
def prune(
    older_than: Annotated[
        timedelta,
        typer.Option(
            parser=age, metavar="AGE", help="Minimum age since the resolution or the discard, such as 30d."
        ),
    ],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove resolved and discarded dead letters for good, in small transactions; workers may run."""
    settings = Settings.load()
    configure_logging(settings)
    confirm("Remove resolved and discarded dead letters of that age for good?", yes=yes)
    count = run_async(prune_past(settings, Retention(closed=older_than)))["dead_letters"]
    if json:
        print_json({"dead_letters": count})
    else:
        screen.print(f"dead letters removed: {count:,}")
