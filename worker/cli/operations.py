"""The command that lists operations: operations, what `status` shows without an id."""

from typing import Annotated

import typer

from worker.cli import status
from worker.cli.common import Json

app = typer.Typer(add_completion=False)


@app.command()
def operations(
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, max=status.MANY, help="Maximum number.")] = None,
    json: Json = False,
) -> None:
    """List operations and their progress, the latest first."""
    status.show(None, watch=False, limit=limit, json=json)
