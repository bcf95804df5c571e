"""The command that shows an operation's device operations: devices."""

from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

import typer

from statemachine import State
from worker.cli import options, tables
from worker.cli.common import Json, print_json, ready_database, run_async, screen
from worker.cli.options import IdRange, OperationId, known, one_operation
from worker.config.settings import Settings
from worker.store import documents, queries
from worker.store.pagination import LIMIT, MAX_LIMIT, MAX_OFFSET, Neighbour, PageRequest, PageResult

app = typer.Typer(add_completion=False)


@app.command()
def devices(
    operation_id: OperationId,
    state: Annotated[
        State | None,
        typer.Option(
            "--state", parser=options.state, metavar="STATE", help="Only those in this state: name or code."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=MAX_LIMIT, help="Device operations on a page.")
    ] = LIMIT,
    offset: Annotated[
        int, typer.Option(metavar="N", min=0, max=MAX_OFFSET, help="Device operations before the page.")
    ] = 0,
    json: Json = False,
) -> None:
    """Show a page of an operation's device operations."""
    request = PageRequest(limit, offset)
    found, page = run_async(_devices(Settings.load(), operation_id, state, request))
    if json:
        print_json(_document(page, found, state))
        return
    if page.results:
        screen.print(tables.device_operations(page.results))
    screen.print(tables.range_shown(offset, len(page.results), page.count))


async def _devices(
    settings: Settings, wanted: IdRange, state: State | None, request: PageRequest
) -> tuple[UUID, PageResult[documents.DeviceOperation]]:
    async with ready_database(settings) as database, database.read() as connection:
        operation_id = await one_operation(connection, wanted)
        _, progress = known(await queries.get_operation(connection, operation_id), operation_id)
        return operation_id, await queries.page_of_device_operations(
            connection, progress, operation_id, state, request
        )


def _document(
    page: PageResult[documents.DeviceOperation], operation_id: UUID, state: State | None
) -> documents.Page[documents.DeviceOperation]:
    """The page with its neighbours' addresses in the HTTP API, without the host."""

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
