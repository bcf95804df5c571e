"""Take dead letters elsewhere, bring them in, and let them go: export, import, prune."""

from datetime import timedelta
from typing import Annotated

import typer

from worker import files, jsonl
from worker.cli.common import (
    Json,
    actor,
    configure_logging,
    log_database,
    notices,
    print_json,
    ready_database,
    run_async,
    screen,
)
from worker.cli.dead_letters.options import Limit, age, selected, selecting
from worker.cli.upkeep import prune_past
from worker.config.settings import Settings
from worker.dead_letters import export_import
from worker.dead_letters.paging import SIZE
from worker.dead_letters.retention import Retention
from worker.store.dead_letters import Selection

LONGEST = 2**28
"""Bytes of an exported line: the largest body that RabbitMQ takes, in base64, and what is kept with it."""

app = typer.Typer()


@app.command()
@selecting()
def export(
    selection: Selection,
    output: Annotated[str, typer.Option(metavar="FILE|-", help="Where to write.")] = "-",
    limit: Limit = None,
) -> None:
    """Write dead letters as JSON lines with everything that was kept of them, the body's bytes exactly."""
    settings = Settings.load()
    count = run_async(_export(settings, selection, output, limit))
    notices.print(f"dead letters exported: {count:,}")


async def _export(settings: Settings, selection: Selection, output: str, limit: int | None) -> int:
    count = 0
    async with selected(settings, selection, limit, "exporting") as (database, progress):
        with files.writable(output) as stream:
            async for lines in export_import.export(database, selection, limit):
                stream.writelines(line + b"\n" for line in lines)
                stream.flush()
                count += len(lines)
                progress(len(lines))
    return count


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(metavar="FILE|-", help="What `export` wrote.")], json: Json = False
) -> None:
    """Bring in exported dead letters; one that is here already is left as it is."""
    settings = Settings.load()
    configure_logging(settings)
    read, new = run_async(_import(settings, source))
    if json:
        print_json({"read": read, "imported": new})
    else:
        screen.print(f"dead letters read: {read:,}; imported: {new:,}; here already: {read - new:,}")


async def _import(settings: Settings, source: str) -> tuple[int, int]:
    read = new = number = 0
    with files.readable(source) as stream:
        log_database(settings)
        async with ready_database(settings, creates=True) as database:
            async for lines in jsonl.chunks(stream, LONGEST):
                numbered = [(number + index, line) for index, line in enumerate(lines, 1) if line.strip()]
                number += len(lines)
                for start in range(0, len(numbered), SIZE):
                    page = [export_import.read_line(line, at) for at, line in numbered[start : start + SIZE]]
                    new += await export_import.import_(database, page, actor=actor(), trust=settings.trust)
                    read += len(page)
    return read, new


@app.command()
def prune(
    older_than: Annotated[
        timedelta, typer.Option(parser=age, metavar="AGE", help="Resolved or discarded so long ago, such as 30d.")
    ],
    json: Json = False,
) -> None:
    """Remove resolved and discarded dead letters for good, in small transactions beside running workers."""
    settings = Settings.load()
    configure_logging(settings)
    count = run_async(prune_past(settings, Retention(closed=older_than)))["dead_letters"]
    if json:
        print_json({"dead_letters": count})
    else:
        screen.print(f"dead letters removed: {count:,}")
