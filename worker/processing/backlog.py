"""The backlog of parked reports: listed, divided into portions for transactions, and read."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from time import perf_counter
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.model.dead_letter import DeadLetter
from worker.model.messages import Incoming
from worker.model.parsing import parse
from worker.processing.batch_keys import TooLarge
from worker.store import dead_letter_batch
from worker.store.dead_letters import stored_message

MAX_REPORTS = 1_000
"""Parked reports that one transaction releases."""
MAX_BYTES = 4_000_000
"""Bytes of parked reports that one transaction releases, about; a single report may have more."""
TURN = 0.02
"""Seconds of work after which the event loop gets a turn."""


class ParkedReport(NamedTuple):
    """A parked report without its body."""

    id: int
    operation_id: UUID
    device_operation_id: UUID
    size: int
    """Bytes of what is stored of it, about."""


async def list_parked(
    connection: AsyncConnection, device_operations: Collection[UUID], limit: int
) -> list[ParkedReport]:
    """The parked reports of device operations, at most `limit`, by device operation, the oldest of each first."""
    return [ParkedReport(*row) for row in await dead_letter_batch.parked(connection, device_operations, limit)]


async def parked_for(
    connection: AsyncConnection, device_operations: Collection[UUID]
) -> defaultdict[UUID, list[DeadLetter]]:
    """The parked reports of device operations, by device operation.

    Raises TooLarge if they are more than one transaction should release.
    """
    found = await list_parked(connection, device_operations, MAX_REPORTS + 1)
    if is_too_large(found):
        raise TooLarge
    letters: defaultdict[UUID, list[DeadLetter]] = defaultdict(list)
    for letter in await read(connection, [each.id for each in found]):
        assert letter.report is not None
        letters[letter.report.key[0]].append(letter)
    return letters


def is_too_large(found: Sequence[ParkedReport]) -> bool:
    """Whether these are more than one transaction should release."""
    return len(found) > 1 and (len(found) > MAX_REPORTS or sum(each.size for each in found) > MAX_BYTES)


def portions(found: Iterable[ParkedReport]) -> Iterator[list[ParkedReport]]:
    """What transactions release, one after another; all of a device operation in one, if they fit."""
    portion: list[ParkedReport] = []
    size = 0

    def is_full(count: int, more: int) -> bool:
        return bool(portion) and (len(portion) + count > MAX_REPORTS or size + more > MAX_BYTES)

    for _, group in groupby(found, key=attrgetter("device_operation_id")):
        of_one = list(group)
        if is_full(len(of_one), sum(each.size for each in of_one)):
            yield portion
            portion, size = [], 0
        for each in of_one:
            if is_full(1, each.size):
                yield portion
                portion, size = [], 0
            portion.append(each)
            size += each.size
    if portion:
        yield portion


async def read(connection: AsyncConnection, ids: Sequence[int]) -> list[DeadLetter]:
    """The reports with these ids that are still parked, the oldest first."""
    letters = []
    began = perf_counter()
    for row in await dead_letter_batch.read_parked(connection, ids):
        message = stored_message(row)
        [item] = parse(message)
        assert isinstance(item, Incoming), "only a readable report is ever parked"
        letters.append(DeadLetter(row.reason, row.detail, message, item))
        if perf_counter() - began > TURN:
            await asyncio.sleep(0)
            began = perf_counter()
    return letters
