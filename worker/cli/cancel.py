"""The command that cancels an operation: cancel."""

from typing import Annotated
from uuid import UUID

import typer

from statemachine import Verdict
from worker.cli.common import (
    Json,
    Yes,
    actor,
    configure_logging,
    confirm,
    print_json,
    ready_database,
    run_async,
    screen,
    utf8,
)
from worker.cli.options import OperationId, known, one_operation
from worker.config.settings import Settings
from worker.model.id_range import IdRange
from worker.model.messages import Origin
from worker.model.outcomes import Tally
from worker.model.text import clean, counted
from worker.processing.direct import cancel_operation
from worker.store import documents, queries

app = typer.Typer(add_completion=False)


@app.command()
def cancel(
    operation_id: OperationId,
    reason: Annotated[
        str | None, typer.Option(parser=utf8, metavar="TEXT", help="Why; kept with each device operation.")
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Cancel every device operation of an operation that is not settled; asks first on a terminal.

    It happens in one transaction; the history names the user of the operating system who runs the command.
    """
    settings = Settings.load()
    configure_logging(settings)
    found, before = run_async(_find(settings, operation_id))
    open_ = counted(before.open, "unsettled device operation")
    confirm(f"Cancel {open_} of operation {found.id} for good?", yes=yes, no="nothing was cancelled")
    operation, count = run_async(_cancel(settings, found.id, reason))
    if json:
        print_json({"operation_id": operation.id, "cancelled": count, "state": operation.state})
    else:
        screen.print(f"device operations cancelled: {count:,}; operation {operation.id} is {operation.state}")


async def _find(settings: Settings, wanted: IdRange) -> tuple[documents.Operation, documents.Progress]:
    async with ready_database(settings) as database, database.read() as connection:
        operation_id = await one_operation(connection, wanted)
        return known(await queries.get_operation(connection, operation_id), operation_id)


async def _cancel(settings: Settings, operation_id: UUID, reason: str | None) -> tuple[documents.Operation, int]:
    async with ready_database(settings) as database:
        async with database.read() as connection:
            operation, _ = known(await queries.get_operation(connection, operation_id), operation_id)
        cancelled = await cancel_operation(
            database,
            operation,
            Origin(),
            service_id=actor(),
            reason=clean(reason) if reason else None,
        )
        async with database.read() as connection:
            operation, _ = known(await queries.get_operation(connection, operation_id), operation_id)
    assert isinstance(cancelled, Tally), "without reporters nothing is denied"
    return operation, cancelled.verdicts[Verdict.APPLIED]
