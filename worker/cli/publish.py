"""The command that sends JSON lines or documents to the broker: publish."""

import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Annotated

import typer
from pydantic_core import from_json, to_json

from worker import files, jsonl
from worker.amqp.connection import connected
from worker.amqp.publisher import Destination
from worker.amqp.publisher import publish as publish_messages
from worker.amqp.topology import Topology
from worker.cli import tables
from worker.cli.common import configure_logging, run_async, screen
from worker.cli.message_types import CHOICES, message_type
from worker.config.settings import Settings
from worker.errors import DeviceopsError
from worker.model.messages import MAX_BODY, Message, Rejected
from worker.model.parsing import parse
from worker.model.surrogates import whole
from worker.tracing import tracing

app = typer.Typer(add_completion=False)


Numbered = tuple[int, Message]
"""A message, and the number of the line where it begins."""


@app.command()
def publish(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-",
            help="A file, or - for standard input: JSON lines, or one JSON document, an array of several.",
        ),
    ],
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
        bool, typer.Option("--unchecked", help="Send also what the contract does not allow, each line as it is.")
    ] = False,
) -> None:
    """Send JSON lines or documents to the exchange; each counts once the broker has confirmed it.

    What the contract does not allow is an error that names the line. Of a file nothing is sent then; of standard
    input, which is sent as it comes, nothing from there on.
    """
    settings = Settings.load()
    configure_logging(settings)
    count = run_async(_publish(settings, source, type_, unchecked))
    screen.print(f"{count:,} messages published to {settings.topology_prefix}")


async def _publish(settings: Settings, source: str, type_: str | None, unchecked: bool) -> int:
    count = 0
    with files.readable(source) as stream:
        is_file = source != "-" and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
        if is_file and not unchecked:
            async for batch in _batches(stream, type_, settings.batch_size, unchecked):
                _check(batch, source, "nothing was sent")
            stream.seek(0)
        async with tracing(settings) as tracer, connected(settings) as connection:
            destination = await Destination.at(connection, Topology(settings.topology_prefix).exchange)
            size = os.fstat(stream.fileno()).st_size if is_file else 0
            with tables.byte_progress() as progress:
                task = progress.add_task(source, total=size or None)
                async for batch in _batches(stream, type_, settings.batch_size, unchecked):
                    messages = [message for _, message in batch]
                    if any(len(message.body) > MAX_BODY for message in messages):
                        raise DeviceopsError(
                            f"{source}: has a message larger than {MAX_BODY:,} bytes, which no worker reads"
                        )
                    if not is_file and not unchecked:
                        _check(batch, "standard input", f"{count:,} messages before it were sent")
                    with nullcontext(messages) if tracer is None else tracer.sending(messages) as traced:
                        await publish_messages(destination, traced)
                    count += len(messages)
                    progress.advance(task, sum(len(message.body) + 1 for message in messages))
    return count


def _check(batch: Sequence[Numbered], source: str, sent: str) -> None:
    """Raise DeviceopsError on the first message that a worker would reject as malformed."""
    for number, message in batch:
        for item in parse(message):
            if isinstance(item, Rejected):
                raise DeviceopsError(
                    f"{source}, line {number}: {item.detail}; {sent} (--unchecked sends it all the same)"
                )


async def _batches(
    stream: files.File, type_: str | None, size: int, unchecked: bool
) -> AsyncIterator[list[Numbered]]:
    """The messages of JSON lines, or of one document if the first line is not JSON by itself."""
    number = 0
    document: list[bytes] | None = None
    async for lines in jsonl.chunks(stream):
        if number == 0 and not unchecked and not _is_line(next((line for line in lines if line.strip()), b"{}")):
            document = []
        if document is not None:
            document += lines
            if sum(map(len, document)) > MAX_BODY:
                raise DeviceopsError(
                    f"{stream.label}: the first line is no JSON, and one document of more than {MAX_BODY:,} bytes "
                    "is not read: write JSON lines"
                )
        else:
            numbered = [(number + index, line) for index, line in enumerate(lines, 1) if line.strip()]
            for start in range(0, len(numbered), size):
                yield [(at, _typed(line, type_)) for at, line in numbered[start : start + size]]
        number += len(lines)
    if document is not None:
        found = _documents(b"\n".join(document), stream.label)
        for start in range(0, len(found), size):
            yield [(1, _typed(line, type_)) for line in found[start : start + size]]


def _is_line(line: bytes) -> bool:
    """Whether a line is a message by itself; one that is too large counts as one."""
    if len(line) > MAX_BODY:
        return True
    try:
        return not isinstance(from_json(whole(line)), list)
    except ValueError:
        return False


def _documents(content: bytes, label: str) -> list[bytes]:
    """The messages of one JSON document. Raises DeviceopsError with the line of an error."""
    try:
        document = from_json(whole(content))
    except ValueError as error:
        raise DeviceopsError(
            f"{label}: is neither JSON lines nor one JSON document: {error}; nothing was sent"
        ) from None
    return [to_json(each) for each in document] if isinstance(document, list) else [content]


def _typed(line: bytes, type_: str | None) -> Message:
    message = jsonl.as_message(line)
    return message if message.type or type_ is None else replace(message, type=type_)
