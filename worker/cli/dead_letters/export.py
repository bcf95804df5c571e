"""The command that writes dead letters as JSON lines: export."""

from typing import Annotated

import typer

from worker import files
from worker.cli.common import notices, run_async
from worker.cli.dead_letters.options import Limit, selected, selecting
from worker.config.settings import Settings
from worker.dead_letters import export_import
from worker.store.selection import Selection

app = typer.Typer(add_completion=False)


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
