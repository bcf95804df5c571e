"""What the system page shows that takes time to find: of the broker, and numbers that cost as much as there is."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from worker.config.settings import Settings
from worker.pages.broker import BrokerWatch, Look
from worker.pages.cached import Cached, Known
from worker.store import server, system_overview
from worker.store.database import Database
from worker.store.server import ServerDescription
from worker.store.system_overview import Waiting

PATIENCE = 0.5
"""Seconds that a page waits for what is not known yet; it shows the rest then."""
_NUMBERS, _SERVER = 5, 60
"""Seconds between two looks at what waits, and at the server of the database."""


class DatabaseServer(NamedTuple):
    """The server of the database."""

    described: ServerDescription
    size: int
    """Bytes."""


class Found(NamedTuple):
    """What is known of all that takes time to find."""

    broker: Look
    waiting: Known[Waiting]
    server: Known[DatabaseServer]


class Facts:
    """All of a process, for every page that is open."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.broker = BrokerWatch(settings)
        self.waiting = Cached(self._waiting, _NUMBERS)
        self.server = Cached(self._server, _SERVER)

    async def found(self) -> Found:
        """What is known of all; waits for what is not known yet, at most `PATIENCE`."""
        looks = self.broker.get(PATIENCE), self.waiting.get(PATIENCE), self.server.get(PATIENCE)
        return Found(*await asyncio.gather(*looks))

    async def _waiting(self) -> Waiting:
        stale_before = datetime.now(UTC) - timedelta(seconds=self.settings.stale_after)
        async with self.database.read() as connection:
            return await system_overview.waiting(connection, self.settings.topology_prefix, stale_before)

    async def _server(self) -> DatabaseServer:
        described = await server.describe(self.database)
        async with self.database.read() as connection:
            return DatabaseServer(described, await system_overview.size(connection))
