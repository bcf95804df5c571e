"""The command that cancels an operation: cancel."""

from typing import Annotated
from uuid import uuid4

import typer

from worker.cli.common import Json, actor, configure_logging, print_json, ready_database, run_async, screen, utf8
from worker.cli.options import IdRange, OperationId, known, one_operation
from worker.config.settings import Settings
from worker.model.messages import Origin
from worker.model.text import clean
from worker.processing.direct import cancel_operation
from worker.store import documents, queries

app = typer.Typer(add_completion=False)


@app.command()
def cancel(
    operation_id: OperationId,
    reason: Annotated[
        str | None, typer.Option(parser=utf8, metavar="TEXT", help="Why; kept with each device operation.")
    ] = None,
    json: Json = False,
) -> None:
    """Cancel every device operation of an operation that is not settled.

    It happens in one transaction; the history names the user of the operating system who runs the command.
    """
    settings = Settings.load()
    configure_logging(settings)
    operation, count = run_async(_cancel(settings, operation_id, reason))
    if json:
        print_json({"operation_id": operation.id, "cancelled": count, "state": operation.state})
    else:
        screen.print(f"device operations cancelled: {count:,}; operation {operation.id} is {operation.state}")


async def _cancel(settings: Settings, wanted: IdRange, reason: str | None) -> tuple[documents.Operation, int]:
    async with ready_database(settings) as database:
        async with database.read() as connection:
            operation_id = await one_operation(connection, wanted)
            operation, before = known(await queries.get_operation(connection, operation_id), operation_id)
        await cancel_operation(
            database,
            operation,
            Origin(),
            service_id=actor(),
            reason=clean(reason) if reason else None,
            key=str(uuid4()),
        )
        async with database.read() as connection:
            operation, after = known(await queries.get_operation(connection, operation_id), operation_id)
    return operation, after.counters.settled_device_count - before.counters.settled_device_count
