"""JSON lines from a file or standard input, for ingest and publish."""

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import typer

from worker import files, jsonl
from worker.cli import tables
from worker.model.messages import Message

Source = Annotated[str, typer.Argument(metavar="FILE|-", help="A file of JSON lines, or - for standard input.")]


async def feed(
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
