"""Commands that feed JSON lines: ingest, publish."""

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated

import typer

from worker import files, jsonl
from worker.amqp.connection import connected
from worker.amqp.publisher import Destination
from worker.amqp.publisher import publish as publish_messages
from worker.amqp.topology import Topology
from worker.cli import tables
from worker.cli.common import Json, configure_logging, log_database, ready_database, run_async, screen
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.model.messages import MAX_BODY, Message
from worker.model.outcomes import Tally
from worker.processing.batches import settle
from worker.tracing import tracing

PATIENCE = 30
"""Seconds that `ingest` waits for a database that was lost on the way."""

app = typer.Typer()

Source = Annotated[str, typer.Argument(metavar="FILE|-", help="A file of JSON lines, or - for standard input.")]


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
                tally.add(await settle(database, messages, trust=settings.trust, patience=PATIENCE))

            await _feed(stream, source, settings.batch_size, process)
    return tally


@app.command()
def publish(source: Source) -> None:
    """Send JSON lines to the exchange; each counts once the broker has confirmed it."""
    settings = Settings.load()
    configure_logging(settings)
    count = run_async(_publish(settings, source))
    screen.print(f"{count:,} messages published to {settings.topology_prefix}")


async def _publish(settings: Settings, source: str) -> int:
    count = 0
    with files.readable(source) as stream:
        async with tracing(settings) as tracer, connected(settings) as connection:
            destination = await Destination.at(connection, Topology(settings.topology_prefix).exchange)

            async def process(messages: Sequence[Message]) -> None:
                nonlocal count
                if any(len(message.body) > MAX_BODY for message in messages):
                    raise DeviceopsError(
                        f"{source}: has a message larger than {MAX_BODY:,} bytes, which no worker reads"
                    )
                send = partial(publish_messages, destination)
                await (send(messages) if tracer is None else tracer.sending(messages, send))
                count += len(messages)

            await _feed(stream, source, settings.batch_size, process)
    return count


async def _feed(
    stream: files.File, source: str, size: int, process: Callable[[Sequence[Message]], Awaitable[None]]
) -> None:
    """Give a source's messages to `process`, `size` at a time, with a progress bar on a terminal."""
    with tables.byte_progress() as progress:
        size_of_source = os.fstat(stream.fileno()).st_size if source != "-" else 0
        task = progress.add_task(source, total=size_of_source or None)
        async for lines in jsonl.chunks(stream):
            for start in range(0, len(lines), size):
                batch = lines[start : start + size]
                await process([jsonl.as_message(line) for line in batch if line.strip()])
                progress.advance(task, sum(map(len, batch)) + len(batch))
