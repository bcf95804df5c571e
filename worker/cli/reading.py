"""Commands that show where the fleet stands: status, devices, device."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from statemachine import SPELLINGS, State
from worker.cli import tables
from worker.cli.common import Json, print_json, ready_database, run_async, screen
from worker.config.settings import Settings
from worker.errors import DeviceopsError, SettingsError
from worker.store import activity, dead_letters, documents, queries
from worker.store.database import Database
from worker.store.pagination import LIMIT, MAX_LIMIT, MAX_OFFSET, Neighbour, Page, Window

MANY = 10**12
SHOWN = 50
"""Operations in a table that was not told how many."""
LONGEST_WAITS = 10
"""Operations whose parked reports are told below it."""
REFRESH = 1
"""Seconds between two looks of `--watch`."""

app = typer.Typer()

OperationId = Annotated[UUID, typer.Argument(help="The operation's id.")]


@app.command()
def status(
    operation_id: Annotated[UUID | None, typer.Argument(help="One operation; all of them if left out.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, max=MANY, help="The latest so many operations.")] = None,
    json: Json = False,
) -> None:
    """Show operations and their progress."""
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


async def _status_document(settings: Settings, operation_id: UUID | None, limit: int | None) -> object:
    async with ready_database(settings) as database, database.read() as connection:
        if operation_id is None:
            return [operation for operation, _ in await queries.list_operations(connection, limit)]
        found = await queries.get_operation(connection, operation_id)
    return _known(found, operation_id)[0]


async def _status_once(settings: Settings, operation_id: UUID | None, limit: int | None) -> RenderableType:
    async with ready_database(settings) as database:
        return await _status(database, operation_id, limit, settings.stale_after)


async def _watch(settings: Settings, operation_id: UUID | None, limit: int | None) -> None:
    async with ready_database(settings) as database:
        with Live(console=screen, auto_refresh=False) as live:
            while True:
                shown = await _status(database, operation_id, limit, settings.stale_after)
                live.update(shown, refresh=True)
                await asyncio.sleep(REFRESH)


async def _status(
    database: Database, operation_id: UUID | None, limit: int | None, stale_after: float
) -> RenderableType:
    stale_before = datetime.now(UTC) - timedelta(seconds=stale_after)
    async with database.read() as connection:
        if operation_id is not None:
            found_one = await queries.get_operation(connection, operation_id)
            parked = await dead_letters.parked(connection, stale_before, 1, operation_id)
            operation = tables.operation(*_known(found_one, operation_id, parked))
            return Group(operation, "", tables.parked(parked)) if parked else operation
        found = await queries.list_operations(connection, limit or SHOWN)
        count = await queries.count_operations(connection)
        backlog = await dead_letters.backlog(connection, stale_before)
        parked = await dead_letters.parked(connection, stale_before, LONGEST_WAITS)
    return Group(*_overview(found, count, backlog, parked))


def _overview(
    found: Sequence[tuple[documents.Operation, documents.Progress]],
    count: int,
    backlog: documents.Backlog,
    parked: Sequence[documents.Parked],
) -> Iterable[RenderableType]:
    yield tables.operations(found) if found else "no operations yet"
    if len(found) < count:
        yield Text(f"the latest {len(found):,} of {count:,}; --limit shows more", style="dim")
    if parked:
        yield ""
        yield f"parked reports, which wait for their registration: {backlog.reports:,}"
        yield tables.parked(parked)
        if backlog.operations > len(parked):
            yield Text(f"those that wait longest of {backlog.operations:,} operations", style="dim")


def _known(
    found: tuple[documents.Operation, documents.Progress] | None,
    operation_id: UUID,
    parked: Sequence[documents.Parked] = (),
) -> tuple[documents.Operation, documents.Progress]:
    if found is None:
        waiting = f"; reports that wait for its registration: {parked[0].count:,}" if parked else ""
        raise DeviceopsError(f"operation {operation_id} is unknown{waiting}")
    return found


def _state(text: str) -> State:
    state = SPELLINGS.get(int(text) if text.isdecimal() else text)
    if state is None:
        raise typer.BadParameter(f"{text!r} is not a state: use a name such as SUCCESS, or a code such as 50")
    return state


@app.command()
def devices(
    operation_id: OperationId,
    state: Annotated[
        State | None,
        typer.Option("--state", parser=_state, metavar="STATE", help="Only those in this state: name or code."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="Device operations on a page.")] = LIMIT,
    offset: Annotated[int, typer.Option(min=0, max=MAX_OFFSET, help="Device operations before the page.")] = 0,
    json: Json = False,
) -> None:
    """Show a page of an operation's device operations."""
    window = Window(limit, offset)
    page = run_async(_devices(Settings.load(), operation_id, state, window))
    if json:
        print_json(_document(page, operation_id, state))
        return
    screen.print(tables.device_operations(page.results))
    first = min(offset + 1, page.count)
    screen.print(f"{first:,} to {min(offset + limit, page.count):,} of {page.count:,}", style="dim")


async def _devices(
    settings: Settings, operation_id: UUID, state: State | None, window: Window
) -> Page[documents.DeviceOperation]:
    async with ready_database(settings) as database, database.read() as connection:
        _, progress = _known(await queries.get_operation(connection, operation_id), operation_id)
        return await queries.page_of_device_operations(connection, progress, operation_id, state, window)


def _document(
    page: Page[documents.DeviceOperation], operation_id: UUID, state: State | None
) -> documents.Page[documents.DeviceOperation]:
    """The page with its neighbours' addresses in the HTTP API, but for the host, which no command knows."""

    def address(neighbour: Neighbour | None) -> str | None:
        filters = {"state": state.name} if state else {}
        path = f"/v0/operations/{operation_id}/devices/"
        return None if neighbour is None else f"{path}?{urlencode({**filters, **neighbour})}"

    return documents.Page[documents.DeviceOperation](
        count=page.count,
        previous=address(page.previous),
        next=address(page.next),
        results=list(page.results),
    )


@app.command()
def device(
    operation_id: OperationId,
    device_id: Annotated[UUID, typer.Argument(help="The device's id.")],
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="Reports to show.")] = MAX_LIMIT,
    offset: Annotated[int, typer.Option(min=0, max=MAX_OFFSET, help="Reports before those.")] = 0,
    json: Json = False,
) -> None:
    """Show one device operation and the reports about it; with --json when it reached its states."""
    found, page = run_async(_device(Settings.load(), operation_id, device_id, limit, offset))
    if json:
        print_json(found)
        return
    screen.print("device operation", str(found.id), tables.state(found.state), tables.plain(found.reason))
    screen.print(tables.reports(page.results))
    if len(page.results) < page.count:
        first, last = min(offset + 1, page.count), min(offset + limit, page.count)
        screen.print(f"{first:,} to {last:,} of {page.count:,}; --offset and --limit show others", style="dim")


async def _device(
    settings: Settings, operation_id: UUID, device_id: UUID, limit: int, offset: int
) -> tuple[documents.DeviceOperation, Page[documents.AcceptedReport]]:
    async with ready_database(settings) as database, database.read() as connection:
        found = await queries.get_device_operation(connection, operation_id, device_id)
        if found is None:
            raise DeviceopsError(f"device {device_id} is not registered for operation {operation_id}")
        return found, await activity.page_of_reports(connection, found.id, Window(limit, offset))
