"""A batch is settled whatever happens: passing failures are waited out, and data that breaks is found.

- What is ours (the database is away, full, locked) is tried again with growing, jittered pauses.
- What is the data's is found by halving, and kept as a dead letter alone; its batch-mates commit in order.
- What is a defect of the program is raised.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_delay,
    stop_never,
    wait_random_exponential,
)

from worker.contract import one_line
from worker.messages import Announced, Item, Message, Unreadable, parse
from worker.outcomes import Tally
from worker.processor import process_batch
from worker.store.database import Database, explain, is_fault_of_data, is_passing

MAX_WEIGHT = 10_000
"""Device operations in one transaction, about: a bulk message may bring as many alone."""
BYTES_PER_WEIGHT = 1_000
"""Bytes of a body that weigh as much as a device operation."""
LONGEST_PAUSE = 30
"""Seconds between two tries, at most."""

_log = structlog.get_logger()


async def settle(database: Database, messages: Iterable[Message], patience: float | None = None) -> Tally:
    """Process messages in their order; when this returns, every one of them is committed.

    `patience` is how many seconds a passing failure is waited out, None for as long as it takes. Raises the
    database's error when patience ends, or when the failure is neither passing nor the data's.
    """
    tally = Tally()
    for items in _transactions(messages):
        tally.add(await _settle(database, items, patience))
    return tally


def _transactions(messages: Iterable[Message]) -> Iterator[list[Item]]:
    """The messages' items, cut so that no transaction grows without bound."""
    items: list[Item] = []
    weight = 0
    for message in messages:
        weight += len(message.body) // BYTES_PER_WEIGHT
        for item in parse(message):
            items.append(item)
            weight += 1
            if isinstance(item, Announced):
                weight += len(item.announcement.device_ids or ())
            if weight >= MAX_WEIGHT:
                yield items
                items, weight = [], 0
    if items:
        yield items


async def _settle(database: Database, items: Sequence[Item], patience: float | None) -> Tally:
    try:
        return await _waiting_out_failures(database, items, patience)
    except Exception as error:
        if not is_fault_of_data(error):
            raise
        if len(items) == 1:
            refused = Unreadable(f"the database refuses it: {one_line(explain(error))}", items[0].message)
            return await _waiting_out_failures(database, [refused], patience)
    half = len(items) // 2
    tally = await _settle(database, items[:half], patience)
    tally.add(await _settle(database, items[half:], patience))
    return tally


async def _waiting_out_failures(database: Database, items: Sequence[Item], patience: float | None) -> Tally:
    retrying = AsyncRetrying(
        retry=retry_if_exception(is_passing),
        wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE),
        stop=stop_never if patience is None else stop_after_delay(patience),
        before_sleep=_log_pause(database),
        reraise=True,
    )
    tally: Tally = await retrying(process_batch, database, items)
    if retrying.statistics["attempt_number"] > 1:
        _log.info("resumed: the database answers", database=str(database))
    return tally


def _log_pause(database: Database) -> Callable[[RetryCallState], None]:
    def log(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1 and error is not None:
            _log.warning("paused: the database fails", database=str(database), error=explain(error))

    return log
