"""The command that draws the state machine: diagram."""

import typer

from statemachine.diagram import mermaid
from worker.config.settings import Settings

app = typer.Typer(add_completion=False)


@app.command()
def diagram() -> None:
    """Print the state machine as a Mermaid diagram."""
    Settings.load()  # every command rejects invalid settings
    print(mermaid())  # noqa: T201
