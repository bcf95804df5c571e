"""What a follower is sent: how it begins, what it has missed page by page, then what is new."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus

import structlog
from sqlalchemy import select
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from worker.api import frames
from worker.api.feed import RETRY, Feed
from worker.api.follower import CHUNK, Follower
from worker.store import queries
from worker.store.change_log import Extent, extent
from worker.store.change_page import Missed, missed_after, read_page
from worker.store.errors import is_database_error
from worker.store.tables import operations

HEARTBEAT = 15
"""Seconds without an event after which a comment is sent."""
PORTION = 500
"""Changes of a page, of about `CHUNK` bytes."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Have no proxy hold events back, or keep them."""

_log = structlog.get_logger()


class EventStream(StreamingResponse):
    """Server-sent events; `ended` is called when they have ended, or none can be sent."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        ended: Callable[[], None],
        status_code: int = HTTPStatus.OK.value,  # the default is read for the OpenAPI document
    ) -> None:
        super().__init__(events, status_code, HEADERS)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


class Stream:
    """The events of a follower."""

    def __init__(self, feed: Feed, follower: Follower) -> None:
        self._database = feed.database
        self._feed = feed
        self._follower = follower
        self._is_at_end = False

    async def begin(self) -> bytes:
        """Begin at the end of the log; returns the first event. Raises the database's errors."""
        _, first = await self._begin()
        self._is_at_end = True
        return first

    async def events(self, first: bytes) -> AsyncGenerator[bytes, None]:
        """The events, from where the follower is, until it is stopped."""
        yield frames.RETRY + first
        self._feed.join(self._follower, is_at_end=self._is_at_end)
        while not self._follower.is_stopped:
            chunk = await (self._news() if self._follower.is_live else self._page())
            if chunk:
                yield chunk

    async def _begin(self) -> tuple[Extent, bytes]:
        """Begin at the end of the log: what it holds, and the event of the operation's present state.

        Both are of one snapshot of the database, so that nothing between them is missed. What is in the state and
        not in the log yet is left out later, as its sequence is not higher.
        """
        follower = self._follower
        await self._feed.number()
        async with self._feed.reading, self._database.read() as connection:
            log = await extent(connection)
            follower.position, follower.known = log.last, 0
            if follower.operation_id is None:
                return log, b""
            found = await queries.get_operation(connection, follower.operation_id)
            if found is None:  # it was known before the database was restored
                return log, b""
            of_it = select(operations.c.sequence).where(operations.c.id == follower.operation_id)
            follower.known = (await connection.execute(of_it)).scalar_one()
        return log, frames.of_operation(log.last, found[0], follower.known)

    async def _page(self) -> bytes:
        """The next events from the log, as far as it is read at a time; a comment if the database is away."""
        follower = self._follower
        try:
            async with self._feed.reading, self._database.read() as connection:
                selected = follower.operation_id, follower.types
                page = await read_page(connection, follower.position, PORTION, CHUNK, *selected)
            missed = missed_after(follower.position, page.extent)
            if missed is not None:
                return await self._begin_again(missed)
        except Exception as error:  # retried; the position stays  # noqa: BLE001
            if not is_database_error(error):
                _log.error("unhandled error", exc_info=error)
            await asyncio.sleep(RETRY)
            return frames.ALIVE
        found = [change for change in page.changes if follower.wants(change.type, change.sequence)]
        follower.position = page.end
        self._feed.join(follower, is_at_end=page.is_last)
        return b"".join(map(frames.of_change, found))

    async def _begin_again(self, missed: Missed) -> bytes:
        after = self._follower.position
        log, first = await self._begin()
        return frames.of_reset(missed, after, log) + first

    async def _news(self) -> bytes:
        """The next events that are new; a comment if there are none for a while."""
        follower = self._follower
        await follower.wait(HEARTBEAT)
        chunk = follower.take(self._feed.recent)
        if not follower.is_live:
            self._feed.leave(follower)
            return b""
        return chunk or frames.alive(self._feed.position_of(follower))
