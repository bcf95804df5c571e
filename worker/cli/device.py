"""The command that shows one device operation: device."""

from typing import Annotated
from uuid import UUID

import typer

from worker.cli import tables
from worker.cli.common import Json, print_json, ready_database, run_async, screen
from worker.cli.options import OperationId
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.store import activity, documents, queries
from worker.store.pagination import MAX_LIMIT, MAX_OFFSET, Page, Window

app = typer.Typer(add_completion=False)


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
