"""The command that shows or exports an operation's device operations: devices."""

from contextlib import aclosing
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

import typer

from worker import files
from worker.cli import device_filter, tables
from worker.cli.common import Json, notices, print_json, ready_database, run_async, screen
from worker.cli.options import OperationId, known, one_operation
from worker.config.settings import Settings
from worker.errors import SettingsError
from worker.model.id_range import IdRange
from worker.store import documents, exports, queries
from worker.store.device_filter import DeviceFilter
from worker.store.export_lines import Format
from worker.store.listing import MAX_COUNT
from worker.store.pagination import LIMIT, MAX_LIMIT, MAX_OFFSET, Neighbour, PageRequest, PageResult

app = typer.Typer(add_completion=False)


@app.command()
def devices(
    context: typer.Context,
    operation_id: OperationId,
    state: device_filter.States = None,
    service: device_filter.Service = None,
    code: device_filter.Code = None,
    reason: device_filter.Reason = None,
    updated_after: device_filter.UpdatedAfter = None,
    updated_before: device_filter.UpdatedBefore = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=MAX_LIMIT, help="Device operations on a page.")
    ] = LIMIT,
    offset: Annotated[
        int, typer.Option(metavar="N", min=0, max=MAX_OFFSET, help="Device operations before the page.")
    ] = 0,
    json: Json = False,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Write all of them in this format, not a page.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE|-", help="Where to write; a file is there once it is whole.", show_default="-"),
    ] = None,
) -> None:
    """Show a page of an operation's device operations, or export all of them."""
    settings = Settings.load()
    chosen = device_filter.chosen(state, service, code, reason, updated_after, updated_before)
    if format_ is not None:
        if json or _is_given(context, "limit") or _is_given(context, "offset"):
            raise SettingsError(
                "--format writes all device operations: --json, --limit and --offset are for pages"
            )
        count = run_async(_export(settings, operation_id, chosen, format_, output or "-"))
        notices.print(f"device operations exported: {count:,}")
        return
    if output is not None:
        raise SettingsError("--output is for --format")
    request = PageRequest(limit, offset, chosen.ordering)
    found, page, codes = run_async(_devices(settings, operation_id, chosen, request))
    if json:
        print_json(_document(page, found, chosen))
        return
    if page.results:
        screen.print(tables.device_operations(page.results, codes))
    is_more = not chosen.is_of_states and page.count >= MAX_COUNT
    screen.print(tables.range_shown(request.offset, len(page.results), page.count, is_more=is_more))


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


async def _devices(
    settings: Settings, wanted: IdRange, chosen: DeviceFilter, request: PageRequest
) -> tuple[UUID, PageResult[documents.DeviceOperation], dict[UUID, str]]:
    """The operation's id, a page of its device operations, and the codes of those on it that have one."""
    async with ready_database(settings) as database, database.read() as connection:
        operation_id = await one_operation(connection, wanted)
        _, progress = known(await queries.get_operation(connection, operation_id), operation_id)
        page = await queries.page_of_device_operations(connection, progress, operation_id, chosen, request)
        return operation_id, page, await queries.codes_of(connection, [each.id for each in page.results])


async def _export(settings: Settings, wanted: IdRange, chosen: DeviceFilter, format_: Format, output: str) -> int:
    """Write all device operations, of one snapshot of the database; returns their number."""
    async with ready_database(settings) as database, database.read() as connection:
        operation_id = await one_operation(connection, wanted)
        known(await queries.get_operation(connection, operation_id), operation_id)
        export = await exports.of_device_operations(connection, operation_id, chosen, format_)
        with tables.counting("exporting", export.count) as progress, files.replaced(output) as stream:
            async with aclosing(export.portions) as portions:
                async for portion in portions:
                    stream.write(portion.text)
                    stream.flush()
                    progress(portion.rows)
    return export.count


def _document(
    page: PageResult[documents.DeviceOperation], operation_id: UUID, chosen: DeviceFilter
) -> documents.Page[documents.DeviceOperation]:
    """The page with its neighbours' addresses in the HTTP API, without the host."""

    def address(neighbour: Neighbour | None) -> str | None:
        path = f"/v0/operations/{operation_id}/devices/"
        parameters = device_filter.parameters(chosen)
        return None if neighbour is None else f"{path}?{urlencode({**parameters, **neighbour})}"

    return documents.Page[documents.DeviceOperation](
        count=page.count,
        previous=address(page.previous),
        next=address(page.next),
        results=list(page.results),
    )
