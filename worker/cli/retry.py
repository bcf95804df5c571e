"""The command that retries what failed of an operation: retry."""

from dataclasses import replace
from typing import Annotated
from uuid import UUID

import typer

from statemachine import State
from worker.cli import device_filter, options
from worker.cli.common import (
    Json,
    Yes,
    configure_logging,
    confirm,
    print_json,
    ready_database,
    run_async,
    screen,
)
from worker.cli.options import OperationId, known, one_operation
from worker.config.settings import Settings
from worker.errors import DeviceopsError, SettingsError
from worker.model.id_range import IdRange
from worker.model.messages import Origin
from worker.model.text import counted
from worker.processing.retry import FAILED, RETRYABLE, Refused, Retry, found_by, retry_operation
from worker.store import documents, queries, retries

app = typer.Typer(add_completion=False)


def retryable(text: str) -> State:
    """A state that can be retried. Raises BadParameter."""
    state = options.state(text)
    if state not in RETRYABLE:
        names = ", ".join(each.name for each in sorted(RETRYABLE))
        raise typer.BadParameter(f"{state.name} cannot be retried, only {names}")
    return state


@app.command()
def retry(
    operation_id: OperationId,
    new_id: Annotated[
        UUID,
        typer.Option("--as", metavar="NEW_ID", help="The new operation's id; the same again is no second one."),
    ],
    state: Annotated[
        list[device_filter.Named] | None,
        typer.Option(
            "--state",
            parser=device_filter.states(retryable),
            metavar="STATE",
            help="FAILURE, TIMEOUT or CANCELLED; several by commas, or repeated. FAILURE and TIMEOUT if left out.",
        ),
    ] = None,
    code: device_filter.Code = None,
    service: device_filter.Service = None,
    reason: device_filter.Reason = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Create an operation for those device operations of another that failed; asks first on a terminal.

    It has the same type, arguments, timeouts and threshold, and is created in one transaction.
    """
    settings = Settings.load()
    configure_logging(settings)
    states = device_filter.all_of(state) or FAILED
    wanted, count = run_async(_find(settings, operation_id, Retry(new_id, new_id, states, code, service, reason)))
    if count:
        found = f"{counted(count, 'device operation')} {found_by(wanted)}"
        question = f"Retry {found} of operation {wanted.operation_id} as operation {new_id}?"
        confirm(question, yes=yes, no="nothing was created")
    is_new, operation, devices = run_async(_retry(settings, wanted))
    if json:
        document = {
            "operation_id": new_id,
            "retry_of": wanted.operation_id,
            "is_new": is_new,
            "device_operations": devices,
            "state": operation.state,
        }
        print_json(document)
        return
    what = "created for" if is_new else "was there already, with"
    screen.print(
        f"operation {new_id} {what} {counted(devices, 'device operation')} of operation {wanted.operation_id}; "
        f"it is {operation.state}"
    )
    if is_new:
        screen.print("Your dispatcher has to take it up: its timeouts run from now on.")


async def _find(settings: Settings, wanted: IdRange, retry: Retry) -> tuple[Retry, int]:
    """The retry of the operation that is meant, and how many it would retry; 0 if it may be there already."""
    async with ready_database(settings) as database, database.read() as connection:
        operation_id = await one_operation(connection, wanted)
        if operation_id == retry.new_id:
            raise SettingsError(f"--as: {operation_id} is the operation itself")
        retry = replace(retry, operation_id=operation_id)
        if await retries.query_of(connection, retry.new_id) is not None:
            return retry, 0
        return retry, await retries.count_devices(connection, operation_id, retry.filter)


async def _retry(settings: Settings, wanted: Retry) -> tuple[bool, documents.Operation, int]:
    """Whether the new operation was created now, itself, and the number of its device operations."""
    async with ready_database(settings) as database:
        outcome = await retry_operation(database, wanted, Origin(), reporters=settings.reporters)
        if isinstance(outcome, Refused):
            raise DeviceopsError(outcome.detail)
        async with database.read() as connection:
            operation, progress = known(await queries.get_operation(connection, wanted.new_id), wanted.new_id)
    return outcome.is_new, operation, progress.counters.resolved_device_count
