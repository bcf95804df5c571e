"""The command that sends JSON lines or documents to the broker: publish."""

import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Annotated

import typer

from worker import files, jsonl
from worker.amqp.connection import connected
from worker.amqp.publisher import Destination
from worker.amqp.publisher import publish as publish_messages
from worker.amqp.topology import Topology
from worker.cli import tables
from worker.cli.common import configure_logging, run_async, screen
from worker.cli.feed import Source, batches
from worker.cli.message_types import CHOICES, message_type
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.model.messages import MAX_BODY, Message, Rejected
from worker.model.parsing import parse, type_of_untyped
from worker.model.text import counted
from worker.tracing import tracing

app = typer.Typer(add_completion=False)


Numbered = tuple[int, Message]
"""A message, and the number of its line, or of its element in an array."""


@app.command()
def publish(
    source: Source,
    type_: Annotated[
        str | None,
        typer.Option(
            "--type",
            parser=message_type,
            metavar=CHOICES,
            help="The type of messages that name none; else a report.",
        ),
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Send also what the contract does not allow.")
    ] = False,
) -> None:
    """Send JSON lines or documents to the exchange; each counts once the broker has confirmed it.

    What the contract does not allow is an error that names the line, or the element of an array. Of a file nothing
    is sent then; of standard input, which is sent as it comes, nothing from there on.
    """
    settings = Settings.load()
    configure_logging(settings)
    count = run_async(_publish(settings, source, type_, unchecked))
    screen.print(f"{counted(count, 'message')} published to {settings.topology_prefix}")


async def _publish(settings: Settings, source: str, type_: str | None, unchecked: bool) -> int:
    count = 0
    with files.readable(source) as stream:
        is_file = source != "-" and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
        if is_file and not unchecked:
            async for unit, batch in _batches(stream, type_, settings.batch_size, unchecked):
                _check(unit, batch, source, "nothing was sent")
            stream.seek(0)
        async with tracing(settings) as tracer, connected(settings) as connection:
            destination = await Destination.at(connection, Topology(settings.topology_prefix).exchange)
            size = os.fstat(stream.fileno()).st_size if is_file else 0
            with tables.byte_progress() as progress:
                task = progress.add_task(source, total=size or None)
                async for unit, batch in _batches(stream, type_, settings.batch_size, unchecked):
                    messages = [message for _, message in batch]
                    if any(len(message.body) > MAX_BODY for message in messages):
                        raise DeviceopsError(
                            f"{source}: has a message larger than {MAX_BODY:,} bytes, which no worker reads"
                        )
                    if not is_file and not unchecked:
                        _check(unit, batch, "standard input", f"messages before it that were sent: {count:,}")
                    with nullcontext(messages) if tracer is None else tracer.sending(messages) as traced:
                        await publish_messages(destination, traced)
                    count += len(messages)
                    progress.advance(task, sum(len(message.body) + 1 for message in messages))
    return count


def _check(unit: str, batch: Sequence[Numbered], source: str, sent: str) -> None:
    """Raise DeviceopsError on the first message that a worker would reject as malformed."""
    for number, message in batch:
        for item in parse(message):
            if isinstance(item, Rejected):
                type_ = type_of_untyped(message)
                hint = f" Then give --type {type_}" if type_ else ""
                raise DeviceopsError(
                    f"{source}, {unit} {number}: {item.detail}{hint}; {sent} (--unchecked sends it all the same)"
                )


async def _batches(
    stream: files.File, type_: str | None, size: int, unchecked: bool
) -> AsyncIterator[tuple[str, list[Numbered]]]:
    async for unit, texts in batches(stream, size, or_lines=unchecked, line_may_be_array=False):
        yield unit, [(number, _typed(text, type_)) for number, text in texts]


def _typed(line: bytes, type_: str | None) -> Message:
    message = jsonl.as_message(line)
    return message if message.type or type_ is None else replace(message, type=type_)
