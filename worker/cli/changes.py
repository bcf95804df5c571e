"""The command that prints what changes: changes."""

import asyncio
import select
import sys
from contextlib import suppress
from typing import Annotated

import typer

from worker.cli import change_lines
from worker.cli.change_start import Start, start_of
from worker.cli.common import notices, ready_database, run_async, screen
from worker.cli.options import uuid
from worker.config.settings import Settings
from worker.errors import DeviceopsError, SettingsError
from worker.files import OutputClosed
from worker.model.changes import Told
from worker.model.id_range import IdRange
from worker.store.change_page import Page, missed_after, number_all, read_page
from worker.store.database import Database
from worker.store.errors import is_database_error

PORTION = 1_000
"""Changes that are read at a time, of about `SIZE` bytes."""
SIZE = 1_000_000
POLL = 0.25
"""Seconds between two looks for new changes."""
RETRY = 1
"""Seconds between two attempts while the database is unavailable."""

app = typer.Typer(add_completion=False)


@app.command()
def changes(
    since: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Only after this position; with --operation, after this sequence of the operation.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new ones until Ctrl-C.")] = False,
    operation: Annotated[
        IdRange | None,
        typer.Option(
            "--operation", parser=uuid, metavar="ID", help="Only of one operation, by its id or how that begins."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines, as into whatever is no terminal.")
    ] = False,
) -> None:
    """Print the changes that are kept, a line each: as JSON, or on a terminal for people."""
    settings = Settings.load()
    if settings.changes is Told.NONE:
        raise SettingsError("no changes are told: DEVICEOPS_CHANGES is none")
    reading = _Printing(settings, operation, since, is_json=json or not screen.is_terminal)
    with suppress(KeyboardInterrupt):
        run_async(reading.follow() if follow else reading.once())


class _Printing:
    """Prints changes on from a position, over connections that may be lost."""

    def __init__(self, settings: Settings, operation: IdRange | None, since: int | None, *, is_json: bool) -> None:
        self._settings = settings
        self._wanted = operation
        self._since = since
        self._line = change_lines.as_json if is_json else change_lines.as_text
        self._start: Start | None = None
        self._position = 0

    async def once(self) -> None:
        """Print what is in the log now."""
        async with ready_database(self._settings) as database:
            start = await self._begin(database)
            while self._position < start.end:
                await self._print_page(database)

    async def follow(self) -> None:
        """Print what is in the log, and what comes, until interrupted."""
        is_away = False
        while True:
            try:
                async with ready_database(self._settings) as database:
                    await self._begin(database)
                    while True:
                        page = await self._print_page(database)
                        is_away = False
                        if page.is_last:
                            _require_reader()
                            await asyncio.sleep(POLL)
                            await number_all(database)
            except DeviceopsError as error:
                if self._start is None or not is_database_error(error.__cause__ or error):
                    raise
                if not is_away:
                    notices.print(f"{error}; trying again", style="yellow", highlight=False, soft_wrap=True)
                is_away = True
            await asyncio.sleep(RETRY)

    async def _begin(self, database: Database) -> Start:
        """Find where to begin, the first time."""
        await number_all(database)
        if self._start is None:
            async with database.read() as connection:
                self._start = await start_of(connection, self._wanted, self._since)
            self._position = self._start.position
        return self._start

    async def _print_page(self, database: Database) -> Page:
        assert self._start is not None
        async with database.read() as connection:
            page = await read_page(connection, self._position, PORTION, SIZE, self._start.operation_id)
        if missed_after(self._position, page.extent) is not None:
            raise DeviceopsError(f"changes after {self._position} are not kept any more")
        for change in page.changes:
            sys.stdout.write(self._line(change) + "\n")
        sys.stdout.flush()
        self._position = page.end
        return page


def _require_reader() -> None:
    """Raise OutputClosed if nobody reads standard output any more, also while there is nothing to write."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if poll.poll(0):
        raise OutputClosed("standard output: nobody reads it")
