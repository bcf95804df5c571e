"""The command that shows operations and their progress: status."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import itemgetter
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from worker.cli import tables
from worker.cli.common import Json, print_json, ready_database, run_async, screen
from worker.cli.options import known, one_operation, uuid
from worker.config.settings import Settings
from worker.errors import DeviceopsError, SettingsError
from worker.model.id_range import IdRange
from worker.model.pace import pace
from worker.store import dead_letters, documents, due, minutes, overview, queries, reason_groups
from worker.store.database import Database, time_limit

MANY = 10**12
SHOWN = 50
"""Default number of operations."""
LARGEST_GROUPS = 3
"""Groups of device operations that did not succeed, by cause, that are shown of one operation."""
LONGEST_WAITS = 10
"""Operations that are stalled, or whose reports are parked, that are listed below the table."""
OVERVIEW_LINES = 3
"""Lines of a watched overview in addition to operations: header, how many are left out, the cursor."""
PARKED_LINES = 4
"""Lines around those of the parked reports."""
STALLED_LINES = 2
"""Lines before those of the stalled operations."""
PATIENCE = 10
"""Timeout of a refresh, in seconds."""
REFRESH = 1
"""Seconds between two refreshes of `--watch`."""

app = typer.Typer(add_completion=False)


class StatusFormat(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"


@app.command()
def status(
    operation_id: Annotated[
        IdRange | None,
        typer.Argument(
            parser=uuid,
            metavar="OPERATION_ID",
            help="One operation, by its id or how that begins; all of them if left out.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=MANY, help="Maximum number of operations, the latest first."),
    ] = None,
    json: Json = False,
    form: Annotated[
        StatusFormat, typer.Option("--format", help="json is the same as --json.")
    ] = StatusFormat.TABLE,
) -> None:
    """Show operations and their progress."""
    show(operation_id, watch=watch, limit=limit, json=json or form is StatusFormat.JSON)


def show(operation_id: IdRange | None, *, watch: bool, limit: int | None, json: bool) -> None:
    """Show one operation, or all of them."""
    if watch and (json or not screen.is_terminal):
        raise SettingsError("--watch is for people: it needs a terminal, and no --json")
    settings = Settings.load()
    if json:
        print_json(run_async(_status_document(settings, operation_id, limit)))
    elif watch:
        with suppress(KeyboardInterrupt):
            run_async(_watch(settings, operation_id, limit))
    else:
        screen.print(run_async(_status_once(settings, operation_id, limit)))


async def _status_document(settings: Settings, wanted: IdRange | None, limit: int | None) -> object:
    async with ready_database(settings) as database, database.read() as connection:
        if wanted is None:
            return [operation for operation, _ in await queries.list_operations(connection, limit)]
        operation_id = await one_operation(connection, wanted)
        found = await queries.get_operation(connection, operation_id)
    return known(found, operation_id)[0]


async def _status_once(settings: Settings, operation_id: IdRange | None, limit: int | None) -> RenderableType:
    async with ready_database(settings) as database:
        return await _status(database, operation_id, limit, settings.stale_after)


async def _watch(settings: Settings, operation_id: IdRange | None, limit: int | None) -> None:
    """Show and refresh until interrupted; a connection that is lost after the first time is tried again."""
    shown: RenderableType | None = None
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            try:
                async with ready_database(settings) as database:
                    while True:
                        async with time_limit(PATIENCE):
                            shown = await _status(
                                database, operation_id, limit, settings.stale_after, screen.height
                            )
                        live.update(shown, refresh=True)
                        await asyncio.sleep(REFRESH)
            except DeviceopsError as error:
                if shown is None:
                    raise
                live.update(Group(Text(f"{error}; trying again", style="yellow"), "", shown), refresh=True)
            await asyncio.sleep(REFRESH)


async def _status(
    database: Database,
    wanted: IdRange | None,
    limit: int | None,
    stale_after: float,
    height: int | None = None,
) -> RenderableType:
    """The tables; within `height` lines, if that is not None, shared by operations and parked reports."""
    stale_before = datetime.now(UTC) - timedelta(seconds=stale_after)
    async with database.read() as connection:
        if wanted is not None:
            operation_id = await one_operation(connection, wanted)
            found_one = await queries.get_operation(connection, operation_id)
            parked = await dead_letters.parked(connection, stale_before, 1, operation_id)
            shown = await due.shown(connection, operation_id)
            groups = await reason_groups.largest(connection, operation_id, LARGEST_GROUPS)
            count = await reason_groups.number_of(connection, operation_id)
            causes = [group.document for group in groups], count
            course = await minutes.course_of(connection, operation_id)
            going = None if course is None else pace(course)
            operation = tables.operation(*known(found_one, operation_id, parked), shown, going, causes)
            return Group(operation, "", tables.parked(parked)) if parked else operation
        found = await queries.list_operations(connection, limit or SHOWN)
        count = await queries.count_operations(connection)
        backlog = await dead_letters.backlog(connection, stale_before)
        parked = await dead_letters.parked(connection, stale_before, LONGEST_WAITS)
        paces = await overview.paces_of(connection, [operation for operation, _ in found])
    stalled = [(id_, going.stalled_since) for id_, going in paces.items() if going.stalled_since is not None]
    stalled = sorted(stalled, key=itemgetter(1))[:LONGEST_WAITS]
    if height is not None:
        parked, stalled = parked[: max(height // 4, 1)], stalled[: max(height // 8, 1)]
        around = OVERVIEW_LINES + (len(parked) + PARKED_LINES if parked else 0)
        around += len(stalled) + STALLED_LINES if stalled else 0
        found = found[: max(height - around, 1)]
    return Group(*_overview(found, count, stalled, backlog, parked))


def _overview(
    found: Sequence[tuple[documents.Operation, documents.Progress]],
    count: int,
    stalled: Sequence[tuple[UUID, datetime]],
    backlog: documents.Backlog,
    parked: Sequence[documents.Parked],
) -> Iterable[RenderableType]:
    yield tables.operations(found) if found else "no operations yet"
    if len(found) < count:
        yield Text(f"the latest {len(found):,} of {count:,}; --limit shows more", style="dim")
    if stalled:
        yield ""
        yield "stalled operations, in which nothing moves:"
        for id_, since in stalled:
            yield f"{id_}  for {tables.since(since)}, since {tables.time(since)}"
    if parked:
        yield ""
        yield f"parked reports, which wait for their registration: {backlog.reports:,}"
        yield tables.parked(parked)
        if backlog.operations > len(parked):
            yield Text(f"those that wait longest of {backlog.operations:,} operations", style="dim")
