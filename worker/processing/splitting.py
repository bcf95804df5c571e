"""Splits items into transactions: one, unless it is too large or the database refuses its data.

- An announcement of very many devices, or with a very large backlog, is processed in portions, each a transaction:
  all devices are registered, then the parked reports are released, then the message is marked as processed. After
  a crash in between, the redelivered message continues where it stopped, as committed portions have no effect
  again.
- Data that the database refuses is found by bisection and kept as one dead letter; the rest commits in order.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from time import perf_counter
from typing import Any, Protocol, TypeVar
from uuid import UUID

from statemachine import State
from worker.config.reporters import Reporters
from worker.model.identity import device_operation_id
from worker.model.messages import Announced, Incoming, Item, Portion, Rejected
from worker.model.outcomes import Tally
from worker.model.text import one_line
from worker.processing import backlog, batch_keys
from worker.processing.backlog import ParkedReport, list_parked, portions
from worker.processing.batch_keys import BatchKeys, TooLarge
from worker.processing.decisions import Answer
from worker.processing.transaction import process_batch, release
from worker.processing.write_probe import is_refused_alone
from worker.store import dead_letter_batch
from worker.store.database import Database
from worker.store.errors import one_line_error

DEVICES = 1_000
"""Device operations whose parked reports are listed in one query."""
LISTED = 20_000
"""Parked reports that one query lists."""
PAUSE = 0.5
"""Pause after a portion, as a fraction of its duration: others poll an SQLite file for its lock."""

Result = TypeVar("Result")


class Transactions(Protocol):
    """Transactions, one after another: real ones, or those of a dry run."""

    async def process(self, items: Sequence[Item], *, releases_parked: bool = True) -> Tally:
        """Process items, see `process_batch`."""

    async def release(self, found: Sequence[ParkedReport], *, refused: str | None = None) -> Tally:
        """Release parked reports, see `worker.processing.transaction.release`."""

    async def waiting(self, device_operations: Collection[UUID], limit: int) -> Sequence[ParkedReport]:
        """The parked reports of device operations, see `worker.processing.backlog.list_parked`."""

    async def weigh(self, device_operations: Collection[UUID]) -> Mapping[UUID, tuple[int, int]]:
        """The number of parked reports, and their bytes, of device operations that have any."""

    async def pause(self, seconds: float) -> None:
        """Leave the database to others after a portion that took `seconds`."""

    async def is_of_data(self, error: Exception) -> bool:
        """Whether the database refused a transaction because of its data."""


class Runner(Protocol):
    """Runs a transaction, possibly several times."""

    async def __call__(self, work: Callable[[], Coroutine[Any, Any, Result]], /) -> Result:
        """The result of `work`."""


async def run_once(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run a transaction once."""
    return await work()


@dataclass(frozen=True, slots=True)
class WriteTransactions:
    """Transactions that commit; `reporters`, `actor` and `answers` are as for `process_batch`.

    `judge` decides whether the database refused a transaction because of its data.
    """

    database: Database
    reporters: Reporters | None = None
    actor: str | None = None
    run: Runner = run_once
    answers: list[Answer] | None = None
    judge: Callable[[Database, Exception], Coroutine[Any, Any, bool]] = is_refused_alone

    async def process(self, items: Sequence[Item], *, releases_parked: bool = True) -> Tally:
        """Process items."""
        return await self.run(
            partial(
                process_batch,
                self.database,
                items,
                self.reporters,
                self.actor,
                releases_parked=releases_parked,
                answers=self.answers,
            )
        )

    async def release(self, found: Sequence[ParkedReport], *, refused: str | None = None) -> Tally:
        """Release parked reports."""
        return await self.run(partial(release, self.database, found, self.reporters, self.actor, refused=refused))

    async def waiting(self, device_operations: Collection[UUID], limit: int) -> Sequence[ParkedReport]:
        """The parked reports of device operations."""

        async def look() -> Sequence[ParkedReport]:
            async with self.database.read() as connection:
                return await list_parked(connection, device_operations, limit)

        return await self.run(look)

    async def weigh(self, device_operations: Collection[UUID]) -> Mapping[UUID, tuple[int, int]]:
        """The number of parked reports of device operations, and their bytes."""

        async def look() -> Mapping[UUID, tuple[int, int]]:
            async with self.database.read() as connection:
                return await dead_letter_batch.weigh_parked(connection, device_operations)

        return await self.run(look)

    async def pause(self, seconds: float) -> None:
        """Leave the database to others."""
        await asyncio.sleep(PAUSE * seconds if self.database.is_sqlite else 0)

    async def is_of_data(self, error: Exception) -> bool:
        """Whether the database refused a transaction because of its data."""
        return await self.judge(self.database, error)


async def process_items(transactions: Transactions, items: Sequence[Item]) -> Tally:
    """Process items in their order, in as few transactions as they take.

    Raises the database's errors that are not caused by data; everything up to there is committed.
    """
    try:
        return await transactions.process(items)
    except TooLarge:
        parts = [] if len(items) == 1 else await _divide(transactions, items)
    except Exception as error:
        if not await transactions.is_of_data(error):
            raise
        parts = _halves(items)
    if len(items) == 1:
        return await _process_alone(transactions, items[0])
    tally = Tally()
    for part in parts:
        tally.add(await process_items(transactions, part))
    return tally


async def release_backlog(transactions: Transactions, device_operations: Iterable[UUID]) -> Tally:
    """Release all parked reports of registered device operations."""
    tally = Tally()
    ids = iter(device_operations)
    while some := list(islice(ids, DEVICES)):
        before: Sequence[ParkedReport] = ()
        while (
            found := await transactions.waiting(some, LISTED)
        ) != before:  # some were released, here or elsewhere
            for portion in portions(found):
                began = perf_counter()
                tally.add(await _released(transactions, portion))
                await transactions.pause(perf_counter() - began)
            if len(found) < LISTED:
                break
            before = found
    return tally


async def _released(transactions: Transactions, found: Sequence[ParkedReport]) -> Tally:
    try:
        return await transactions.release(found)
    except Exception as error:
        if not await transactions.is_of_data(error):
            raise
        refused = f"the database refuses it: {one_line(one_line_error(error))}"
    if len(found) == 1:
        return await transactions.release(found, refused=refused)
    tally = Tally()
    for half in _halves(found):
        tally.add(await _released(transactions, half))
    return tally


def _halves(sequence: Sequence[Result]) -> list[Sequence[Result]]:
    half = len(sequence) // 2
    return [sequence[:half], sequence[half:]]


async def _process_alone(transactions: Transactions, item: Item) -> Tally:
    try:  # once more: concurrent writes of two workers may break a transaction too
        return await _process_in_portions(transactions, item)
    except Exception as error:
        if not await transactions.is_of_data(error):
            raise
        refused = Rejected(f"the database refuses it: {one_line(one_line_error(error))}", item.message)
    try:
        return await transactions.process([refused])
    except Exception as error:
        if not await transactions.is_of_data(error):
            raise
    # The database refuses the dead letter too: it is kept with its bytes alone, so that it ends no worker.
    detail = refused.detail.encode("ascii", "backslashreplace").decode()
    bare = Rejected(f"{detail} (and what it says of itself)", item.message.bare())
    return await transactions.process([bare])


async def _process_in_portions(transactions: Transactions, item: Item) -> Tally:
    if isinstance(item, Announced):
        return await _announce(transactions, item)
    tally = await transactions.process([item], releases_parked=False)
    if isinstance(item, Incoming) and item.report.state is State.CREATED:
        tally.add(await release_backlog(transactions, [item.key[0]]))
    return tally


async def _announce(transactions: Transactions, announced: Announced) -> Tally:
    """Register devices, release their parked reports, and mark the announcement as processed; or reject it."""
    tally = Tally()
    devices = list(announced.devices)
    for start in range(0, len(devices) or 1, batch_keys.MAX_DEVICES):
        began = perf_counter()
        portion = Portion(devices[start : start + batch_keys.MAX_DEVICES], is_first=start == 0)
        tally.add(await transactions.process([replace(announced, portion=portion)], releases_parked=False))
        if tally.received:
            return tally
        await transactions.pause(perf_counter() - began)
    operation_id = announced.announcement.id
    # All are registered by now, so that the operation is not settled before its last device is.
    tally.add(
        await release_backlog(transactions, (device_operation_id(operation_id, device) for device in devices))
    )
    tally.add(await transactions.process([replace(announced, portion=Portion((), is_last=True))]))
    return tally


async def _divide(transactions: Transactions, items: Sequence[Item]) -> Sequence[Sequence[Item]]:
    """The items in parts, each of which fits one transaction or is a single item."""
    registered = [await _registered(number, item) for number, item in enumerate(items)]
    weights = await transactions.weigh({id_ for ids in registered for id_ in ids or ()})
    parts = list(_parts(items, registered, weights))
    return parts if len(parts) > 1 else _halves(items)


async def _registered(number: int, item: Item) -> Collection[UUID] | None:
    """The device operations that an item registers; None if they are too many for one transaction."""
    if number % DEVICES == 0:
        await asyncio.sleep(0)
    try:
        return BatchKeys.of([item]).registering
    except TooLarge:
        return None


def _parts(
    items: Sequence[Item],
    registered: Sequence[Collection[UUID] | None],
    weights: Mapping[UUID, tuple[int, int]],
) -> Iterator[Sequence[Item]]:
    part: list[Item] = []
    reports = size = 0
    for item, ids in zip(items, registered, strict=True):
        found = [weights[id_] for id_ in ids or () if id_ in weights]
        more, larger = sum(each for each, _ in found), sum(each for _, each in found)
        is_full = reports + more > backlog.MAX_REPORTS or size + larger > backlog.MAX_BYTES
        if part and (ids is None or is_full):
            yield part
            part, reports, size = [], 0, 0
        part.append(item)
        reports, size = reports + more, size + larger
        if ids is None:
            yield part
            part, reports, size = [], 0, 0
    if part:
        yield part
