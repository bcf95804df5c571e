"""A selection of dead letters in pages, the oldest first: those that there are when it begins."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiolimiter import AsyncLimiter
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store import dead_letters
from worker.store.selection import Selection

SIZE = 500
"""Dead letters in a page, at most."""
PATIENCE = 30
"""Seconds that a command waits for a database that was lost on the way."""

Reading = Callable[[], AbstractAsyncContextManager[AsyncConnection]]
Progress = Callable[[int], object]
"""Told how many dead letters were done, page by page."""


async def pages(
    reading: Reading, selection: Selection, limit: int | None = None, rate: float | None = None
) -> AsyncIterator[Sequence[Row[Any]]]:
    """The rows of a selection, `limit` at most; `rate` is how many may come in a second.

    What is selected is settled at the beginning; what stands elsewhere by its turn is left out.
    """
    size = SIZE if rate is None else max(1, min(SIZE, int(rate)))
    limiter = AsyncLimiter(size, size / rate) if rate else None
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
