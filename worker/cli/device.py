"""The command that shows one device operation: device."""

from typing import Annotated

import typer
from sqlalchemy import case

from statemachine import Expiry
from worker.cli import tables
from worker.cli.common import Json, print_json, ready_database, run_async, screen
from worker.cli.options import OperationId, one_id, one_operation, uuid
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.model.id_range import IdRange
from worker.store import activity, documents, due, queries
from worker.store.pagination import MAX_LIMIT, MAX_OFFSET, PageRequest, PageResult
from worker.store.tables import device_operations

app = typer.Typer(add_completion=False)


@app.command()
def device(
    operation_id: OperationId,
    device_id: Annotated[
        IdRange, typer.Argument(parser=uuid, metavar="DEVICE_ID", help="The device's id, or how it begins.")
    ],
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=MAX_LIMIT, help="Reports to show.")] = MAX_LIMIT,
    offset: Annotated[int, typer.Option(metavar="N", min=0, max=MAX_OFFSET, help="Reports before those.")] = 0,
    json: Json = False,
) -> None:
    """Show one device operation and the reports about it; with --json when it reached its states."""
    found, expiry, page = run_async(_device(Settings.load(), operation_id, device_id, limit, offset))
    if json:
        print_json(found)
        return
    screen.print(tables.device_operation(found, expiry), "", tables.reports(page.results), sep="\n")
    if len(page.results) < page.count:
        screen.print(tables.range_shown(offset, len(page.results), page.count))


async def _device(
    settings: Settings, operation: IdRange, device: IdRange, limit: int, offset: int
) -> tuple[documents.DeviceOperation, Expiry | None, PageResult[documents.AcceptedReport]]:
    async with ready_database(settings) as database, database.read() as connection:
        operation_id = await one_operation(connection, operation)
        devices = case((device_operations.c.operation_id == operation_id, device_operations.c.device_id))
        device_id = await one_id(connection, devices, device, "device of the operation")
        found = await queries.get_device_operation(connection, operation_id, device_id)
        if found is None:
            raise DeviceopsError(f"device {device_id} is not registered for operation {operation_id}")
        expiry = await due.expiry_of(connection, found.id)
        return found, expiry, await activity.page_of_reports(connection, found.id, PageRequest(limit, offset))
