"""The command that brings in exported dead letters: import."""

from typing import Annotated

import typer

from worker import files, jsonl
from worker.cli.common import (
    Json,
    actor,
    configure_logging,
    log_database,
    print_json,
    ready_database,
    run_async,
    screen,
)
from worker.config.settings import Settings
from worker.dead_letters import export_import
from worker.dead_letters.paging import SIZE

LONGEST = 2**28
"""Bytes of an exported line: the largest body that RabbitMQ takes, in base64, and what is kept with it."""

app = typer.Typer(add_completion=False)


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
                    new += await export_import.import_(database, page, actor=actor(), reporters=settings.reporters)
                    read += len(page)
    return read, new
