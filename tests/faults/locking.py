"""A PostgreSQL database in which batches wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.faults.ledger import PATIENCE


@asynccontextmanager
async def locked(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that lets no batch commit for the length of a block."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE operations IN EXCLUSIVE MODE")
            yield connection
    finally:
        await connection.close()


async def a_batch_waits(connection: asyncpg.Connection) -> None:
    """Return once a worker's transaction waits for the lock."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'operations'::regclass"
    async with asyncio.timeout(PATIENCE):
        while not await connection.fetchval(waiting):  # noqa: ASYNC110  # the database sends no event
            await asyncio.sleep(0.02)
