"""The command that serves the web page and the HTTP API: serve."""

from typing import Annotated

import typer

from worker.api import server
from worker.cli.common import configure_logging, log_database, ready_database, run_async, utf8
from worker.config.settings import Settings
from worker.pages.app import mount
from worker.store import database

LOCK_TIMEOUT = 10
"""Seconds that a call waits for a lock, such as that of a cancellation of many devices."""

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(parser=utf8, metavar="TEXT", help="Listen on this address, not the setting's.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=65_535, help="Listen on this port; 0 for any.")
    ] = None,
) -> None:
    """Serve the web page and the HTTP API until SIGTERM or Ctrl-C; the API's documentation is at /docs."""
    settings = Settings.load()
    given = {name: value for name, value in (("http_host", host), ("http_port", port)) if value is not None}
    configure_logging(settings)
    run_async(_serve(settings.model_copy(update=given)))


async def _serve(settings: Settings) -> None:
    limit = settings.database_timeout
    log_database(settings)
    async with (
        ready_database(settings, limit, creates=True) as reading,
        database.opened(
            settings,
            lock_timeout=LOCK_TIMEOUT,
            answer_timeout=limit,
            limit=limit,
            shares_state_with=reading,
        ) as writing,
    ):
        await server.serve(settings, reading, writing, mount)
