"""JSON lines, or one JSON document, from a file or standard input: for ingest and publish."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, NamedTuple

import typer
from pydantic_core import from_json, to_json

from worker import files, jsonl
from worker.errors import DeviceopsError
from worker.model.messages import MAX_BODY
from worker.model.surrogates import whole

Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE|-",
        help="A file, or - for standard input: JSON lines, or one JSON document, an array of several.",
    ),
]
_ALWAYS_EXAMINED = 1 << 16
"""Bytes up to which the beginning of a document is examined after each read; then when it has doubled."""


class Batch(NamedTuple):
    """Some messages as they were read."""

    unit: str
    """What the numbers count: lines, or elements of an array."""
    texts: Sequence[tuple[int, bytes]]
    """Each message's JSON text, with its number from 1."""


async def batches(
    stream: files.File, size: int, *, or_lines: bool, line_may_be_array: bool
) -> AsyncIterator[Batch]:
    """The messages of JSON lines, or of one document if the first line is not a message by itself.

    `or_lines` is whether input that turns out to be no JSON document is read as JSON lines all the same; else
    that raises DeviceopsError. `line_may_be_array` is whether an array on the first line is a message.
    """
    is_first, number = True, 0
    held: list[bytes] | None = None
    length = examined = 0
    async for lines in jsonl.chunks(stream):
        if is_first and not _is_message(next((line for line in lines if line.strip()), b"{}"), line_may_be_array):
            held = []
        is_first = False
        if held is not None:
            held += lines
            length += sum(map(len, lines)) + len(lines)
            if length > MAX_BODY and not or_lines:
                raise DeviceopsError(
                    f"{stream.label}: the first line is no JSON, and one document of more than {MAX_BODY:,} bytes "
                    "is not read: write JSON lines"
                )
            if length <= MAX_BODY:
                if not or_lines or _ALWAYS_EXAMINED < length < 2 * examined:
                    continue
                examined = length
                if _may_go_on(b"\n".join(held)):
                    continue
            lines, held = held, None  # all the lines so far
        for batch in _batches("line", lines, number, size):
            yield batch
        number += len(lines)
    if held is not None:
        for batch in _batches(*_document(held, stream.label, or_lines=or_lines), 0, size):
            yield batch


def _batches(unit: str, texts: Sequence[bytes], before: int, size: int) -> Iterator[Batch]:
    numbered = [(number, text) for number, text in enumerate(texts, before + 1) if text.strip()]
    for start in range(0, len(numbered), size):
        yield Batch(unit, numbered[start : start + size])


def _is_message(line: bytes, may_be_array: bool) -> bool:
    """Whether a line is a message by itself; one that is too large counts as one."""
    if len(line) > MAX_BODY:
        return True
    try:
        document = from_json(whole(line))
    except ValueError:
        return False
    return may_be_array or not isinstance(document, list)


def _may_go_on(beginning: bytes) -> bool:
    """Whether lines are a JSON document, or may be the beginning of one."""
    try:
        from_json(whole(beginning))
    except ValueError as error:
        return str(error).startswith("EOF while parsing")
    return True


def _document(lines: list[bytes], label: str, *, or_lines: bool) -> tuple[str, Sequence[bytes]]:
    """The messages of one JSON document, and what counts them. Raises DeviceopsError with the line of an error."""
    content = b"\n".join(lines)
    try:
        document = from_json(whole(content))
    except ValueError as error:
        if or_lines:
            return "line", lines
        raise DeviceopsError(
            f"{label}: is neither JSON lines nor one JSON document: {error}; nothing was sent"
        ) from None
    if not isinstance(document, list):
        return "line", [content]
    if not document and or_lines:
        return "line", lines
    return "element", [to_json(each, inf_nan_mode="constants") for each in document]
