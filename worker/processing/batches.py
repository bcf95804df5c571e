"""Batches: split into transactions, retried while the database is unavailable, isolated where data is refused.

- Transient failures (the database is unavailable, full, locked) are retried with growing, jittered pauses.
- Data that the database refuses is found by bisection and kept as one dead letter; the rest commits in order.
- What the database refuses of every batch, and errors of the program, are raised.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Row
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_delay,
    stop_never,
    wait_random_exponential,
)

from worker.config.reporters import Reporters
from worker.model.messages import Announced, Item, Message
from worker.model.outcomes import Tally
from worker.model.parsing import parse
from worker.processing.splitting import WriteTransactions, process_items
from worker.processing.write_probe import probe_write
from worker.store import dead_letters
from worker.store.database import Database
from worker.store.dead_letters import stored_message
from worker.store.errors import is_rejected, is_transient, one_line_error

MAX_WEIGHT = 20_000
"""Device operations in one transaction, about: a single bulk message may have as many."""
BYTES_PER_WEIGHT = 1_000
"""Bytes of a body that weigh as much as a device operation."""
BYTES_AT_ONCE = 10_000
"""Bytes of bodies that are parsed before the event loop gets a turn: half a millisecond."""
LONGEST_PAUSE = 5
"""Maximum of seconds between two attempts."""
MAX_DOUBLINGS = 4
"""Maximum of times that the timeout of an attempt is doubled."""

Result = TypeVar("Result")


async def process_messages(
    database: Database,
    messages: Sequence[Message],
    *,
    reporters: Reporters | None = None,
    actor: str | None = None,
    patience: float | None = None,
) -> Tally:
    """Process messages in their order; when this returns, every one of them is committed.

    `reporters` and `actor` are as for `process_batch`. `patience` is the seconds for which a transient failure is
    retried, None for no limit. Raises the database's error when they have passed, or when it is neither transient
    nor caused by data; and DeviceopsError if the database accepts no batch at all.
    """
    if any(message.replay_of for message in messages):
        messages = await retry_transient(database, patience, _recognised, database, messages)

    committed = write_transactions(database, reporters=reporters, actor=actor, patience=patience)
    tally = Tally()
    parts = split_by_weight(messages)
    reading = asyncio.create_task(anext(parts, None))
    try:
        while (items := await reading) is not None:
            # The next one is parsed while the database has this one: a fifth of all time, with large messages.
            reading = asyncio.create_task(anext(parts, None))
            tally.add(await process_items(committed, items))
    finally:
        reading.cancel()
    return tally


def write_transactions(
    database: Database,
    *,
    reporters: Reporters | None = None,
    actor: str | None = None,
    patience: float | None = None,
) -> WriteTransactions:
    """Transactions that are retried on transient failures; the parameters are as for `process_messages`.

    A refusal counts as caused by data only if the database accepts a probe (`worker.processing.write_probe`): it
    may refuse every batch, as after a column was added, and then no valid message may become a dead letter. A
    refusal of a single message, as by a trigger, must not end the worker, which would receive it again at each
    start.
    """
    is_probed = False

    async def run(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        return await retry_transient(database, patience, work)

    async def judge(database: Database, error: Exception) -> bool:
        nonlocal is_probed
        if not is_rejected(error):
            return False
        if not is_probed:
            await retry_transient(database, patience, probe_write, database)
            is_probed = True
        return True

    return WriteTransactions(database, reporters, actor, run, judge=judge)


async def _recognised(database: Database, messages: Sequence[Message]) -> list[Message]:
    """The messages; a republished dead letter, with the same body, as it is stored."""
    async with database.read() as connection:
        rows = await dead_letters.by_fingerprint(connection, {m.replay_of for m in messages if m.replay_of})
    return [_as_stored(message, rows) for message in messages]


def _as_stored(message: Message, rows: Mapping[UUID, Row[Any]]) -> Message:
    row = rows.get(message.replay_of) if message.replay_of else None
    if row is None or row.body != message.body:
        return message
    return replace(
        stored_message(row), is_republished=True, abandoned=message.abandoned, redeliveries=message.redeliveries
    )


async def split_by_weight(messages: Iterable[Message]) -> AsyncIterator[list[Item]]:
    """The messages' items, divided so that no transaction exceeds `MAX_WEIGHT` by more than one message."""
    items: list[Item] = []
    weight = 0
    read = 0
    for message in messages:
        read += len(message.body)
        if read >= BYTES_AT_ONCE:
            read = 0
            await asyncio.sleep(0)
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


async def retry_transient(
    database: Database,
    patience: float | None,
    work: Callable[..., Coroutine[Any, Any, Result]],
    *arguments: object,
) -> Result:
    """The result of `work`, retried on transient failures; `patience` is as for `process_messages`.

    An attempt without an answer is abandoned, as a frozen server or a dropped connection never answers. The next
    one may take twice as long, so that a slow database gets the time that it needs.
    """
    loop = asyncio.get_running_loop()
    began, doublings = loop.time(), 0

    async def tried() -> Result:
        nonlocal doublings
        try:
            result = await database.run_with_timeout(work(*arguments), database.answer_timeout * 2**doublings)
        except Exception as error:
            if isinstance(error, TimeoutError):
                doublings = min(doublings + 1, MAX_DOUBLINGS)
            if database.is_retryable(error):
                why, is_refusal = one_line_error(error), not is_transient(error)
                database.dependency.mark_down(why, is_refusal=is_refusal, database=str(database))
            raise
        database.dependency.mark_up(database=str(database))
        return result

    try:
        return await tried()
    except Exception as error:
        if not database.is_retryable(error):
            raise
        failed = error
    # Only after a failure: each call of tenacity leaves some thirty objects in reference cycles, and the garbage
    # collector's pauses would dominate the latency of small batches.
    retrying = AsyncRetrying(
        retry=retry_if_exception(database.is_retryable),
        wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE),
        stop=stop_never if patience is None else stop_after_delay(patience - (loop.time() - began)),
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            if attempt.retry_state.attempt_number == 1:
                raise failed
            result = await tried()
    return result
