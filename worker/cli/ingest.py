"""The command that processes JSON lines without a broker: ingest."""

import os

import typer

from worker import files, jsonl
from worker.cli import tables
from worker.cli.common import Json, configure_logging, log_database, ready_database, run_async
from worker.cli.feed import Source, batches
from worker.config.settings import Settings
from worker.model.outcomes import Tally
from worker.processing.batch_log import log_aborts
from worker.processing.batches import process_messages

PATIENCE = 30
"""Seconds that `ingest` waits for a database that has become unavailable."""

app = typer.Typer(add_completion=False)


@app.command()
def ingest(source: Source, json: Json = False) -> None:
    """Process JSON lines or documents without a broker: reports, or envelopes.

    An envelope is an object with `body`, and no other keys than `type`, `message_id` and `headers`.
    """
    settings = Settings.load()
    configure_logging(settings)
    tables.show_tally(run_async(_ingest(settings, source)), json)


async def _ingest(settings: Settings, source: str) -> Tally:
    tally = Tally()
    with files.readable(source) as stream:
        log_database(settings)
        async with ready_database(settings, for_batches=True, creates=True) as database:
            with tables.byte_progress() as progress:
                size = os.fstat(stream.fileno()).st_size if source != "-" else 0
                task = progress.add_task(source, total=size or None)
                async for _, texts in batches(stream, settings.batch_size, or_lines=True, line_may_be_array=True):
                    messages = [jsonl.as_message(text) for _, text in texts]
                    found = await process_messages(
                        database, messages, reporters=settings.reporters, patience=PATIENCE
                    )
                    log_aborts(found)
                    tally.add(found)
                    progress.advance(task, sum(len(text) + 1 for _, text in texts))
    return tally
