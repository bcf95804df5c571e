"""Being told of operations that changed, where the database can tell: PostgreSQL's LISTEN and NOTIFY."""

import asyncio
from collections.abc import Callable
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from worker.store.database import Database
from worker.store.lines import let_go_of_dead_ones
from worker.store.rows import CHANNEL

ALIVE = 10
"""Seconds between two looks whether the connection still stands, and how long one may take."""


async def listen(database: Database, told: Callable[[UUID], None], ready: Callable[[], None]) -> None:
    """Call `told` with the id of each operation that a commit changes, from when `ready` was called.

    Goes on until it is cancelled, or raises what ends the connection: the database's error, or an OSError.
    """
    # A connection of its own, for as long as somebody listens: the pool's are for those who come and go.
    engine = create_async_engine(database.url, poolclass=NullPool, connect_args=database.connect_args)
    let_go_of_dead_ones(engine)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await driver.add_listener(CHANNEL, lambda _connection, _pid, _channel, id_: told(UUID(id_)))
            ready()
            while True:
                await asyncio.sleep(ALIVE)
                async with asyncio.timeout(ALIVE):
                    await connection.execute(text("SELECT 1"))
    finally:
        await engine.dispose()
