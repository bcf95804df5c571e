"""Iterates over a selection of dead letters in pages, oldest first."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiolimiter import AsyncLimiter
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store import dead_letters
from worker.store.selection import Selection

SIZE = 500
"""Maximum number of dead letters on a page."""
RETRY_TIMEOUT = 30
"""Seconds that a command retries after it has lost the database."""

Reading = Callable[[], AbstractAsyncContextManager[AsyncConnection]]
OnProgress = Callable[[int], object]
"""Called with the number of processed dead letters after each page."""


async def pages(
    reading: Reading,
    selection: Selection,
    limit: int | None = None,
    rate: float | None = None,
    *,
    is_dry_run: bool = False,
) -> AsyncIterator[Sequence[Row[Any]]]:
    """Yield the rows of a selection, at most `limit` in all and `rate` per second.

    The ids are selected at the start; rows whose status has changed before their page are skipped. A dry run has
    the same pages, as what follows depends on them, and does not wait.
    """
    size = SIZE if rate is None else max(1, min(SIZE, int(rate)))
    limiter = AsyncLimiter(size, size / rate) if rate and not is_dry_run else None
    async with reading() as connection:
        ids = await dead_letters.ids_of(connection, selection, limit)
    done = 0
    while done < len(ids):
        async with reading() as connection:
            rows, looked_at = await dead_letters.page(connection, ids[done : done + size], selection.status)
        done += looked_at
        if not rows:
            continue
        if limiter is not None:
            await limiter.acquire(len(rows))
        yield rows
