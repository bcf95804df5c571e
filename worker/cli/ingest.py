"""The command that processes JSON lines without a broker: ingest."""

from collections.abc import Sequence

import typer

from worker import files
from worker.cli import tables
from worker.cli.common import Json, configure_logging, log_database, ready_database, run_async
from worker.cli.feed import Source, feed
from worker.config.settings import Settings
from worker.model.messages import Message
from worker.model.outcomes import Tally
from worker.processing.batches import process_messages

PATIENCE = 30
"""Seconds that `ingest` waits for a database that has become unavailable."""

app = typer.Typer(add_completion=False)


@app.command()
def ingest(source: Source, json: Json = False) -> None:
    """Process JSON lines without a broker: reports, or envelopes of body, type, message_id and headers."""
    settings = Settings.load()
    configure_logging(settings)
    tables.show_tally(run_async(_ingest(settings, source)), json)


async def _ingest(settings: Settings, source: str) -> Tally:
    tally = Tally()
    with files.readable(source) as stream:
        log_database(settings)
        async with ready_database(settings, for_batches=True, creates=True) as database:

            async def process(messages: Sequence[Message]) -> None:
                tally.add(
                    await process_messages(database, messages, reporters=settings.reporters, patience=PATIENCE)
                )

            await feed(stream, source, settings.batch_size, process)
    return tally
