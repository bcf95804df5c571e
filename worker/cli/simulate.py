"""The command that prints generated traffic: simulate."""

import sys
from typing import Annotated, Any

import typer

from worker.cli.options import Seed, finite
from worker.config.settings import Settings
from worker.simulate import Disorder
from worker.simulate import simulate as simulated

app = typer.Typer(add_completion=False)


def _probability(help_text: str) -> Any:
    return typer.Option(
        metavar="P", min=0.0, max=1.0, callback=finite, help=f"Probability (0 to 1) of {help_text}."
    )


@app.command()
def simulate(
    operations: Annotated[int, typer.Option(metavar="N", min=1, help="Operations.")] = 1,
    devices: Annotated[int, typer.Option(metavar="N", min=0, help="Devices of each operation.")] = 100,
    seed: Seed = 1,
    disorder: Annotated[float, _probability("a report to be overtaken by later ones")] = 0.0,
    duplicates: Annotated[float, _probability("a report to be sent twice")] = 0.0,
    conflicts: Annotated[float, _probability("a settled device to be contradicted")] = 0.0,
    malformed: Annotated[float, _probability("an unreadable message beside a report")] = 0.0,
    early: Annotated[float, _probability("a device to report before the announcement")] = 0.0,
    silent: Annotated[float, _probability("a device to fall silent, so that it never settles")] = 0.0,
) -> None:
    """Print a fleet's life as JSON lines for ingest and publish."""
    Settings.load()  # every command rejects invalid settings
    for line in simulated(
        operations, devices, seed, Disorder(disorder, duplicates, conflicts, malformed, early, silent)
    ):
        sys.stdout.write(line + "\n")
