"""The command that shows why devices failed: reasons."""

from typing import Annotated
from uuid import UUID

import typer

from worker.cli import tables
from worker.cli.common import Json, print_json, ready_database, run_async, screen
from worker.cli.options import OperationId, known, one_operation
from worker.config.settings import Settings
from worker.model.id_range import IdRange
from worker.store import documents, queries, reason_groups

SHOWN = 50
"""Default number of groups in the table."""
app = typer.Typer(add_completion=False)


@app.command()
def reasons(
    operation_id: OperationId,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help=f"Maximum number of groups; {SHOWN} in a table, all with --json."),
    ] = None,
    json: Json = False,
) -> None:
    """Show why an operation's devices failed, timed out or were cancelled: by code or reason, the largest first.

    Without a code, reasons that differ only in ids, numbers, times, addresses, paths or quoted text are one group.
    """
    found, count, progress = run_async(_reasons(Settings.load(), operation_id, limit or (None if json else SHOWN)))
    if json:
        print_json(found)
    elif found:
        screen.print(tables.reasons(found, progress.counters))
        if len(found) < count:
            screen.print(tables.largest_shown(len(found), count, "--limit shows more"))
    else:
        screen.print("no device operation has failed, timed out or been cancelled")


async def _reasons(
    settings: Settings, wanted: IdRange, limit: int | None
) -> tuple[list[documents.ReasonGroup], int, documents.Progress]:
    """The largest groups, the number of all, and the counters of the operation."""
    async with ready_database(settings) as database, database.read() as connection:
        operation_id: UUID = await one_operation(connection, wanted)
        _, progress = known(await queries.get_operation(connection, operation_id), operation_id)
        groups = await reason_groups.largest(connection, operation_id, limit)
        count = await reason_groups.number_of(connection, operation_id)
    return [group.document for group in groups], count, progress
