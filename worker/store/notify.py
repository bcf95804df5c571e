"""Being told of operations that changed, where the database can tell: PostgreSQL's LISTEN and NOTIFY."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from sqlalchemy import text

from worker.store.bulk import CHANNEL
from worker.store.database import Database
from worker.store.errors import Unreachable

ALIVE = 10
"""Seconds between two looks whether the connection still stands, and how long one may take."""

_STAY = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
"""To be idle is what it is for; before PostgreSQL 14 there is no such limit."""
_IS_READ_ONLY = "SELECT current_setting('transaction_read_only')"


async def listen(database: Database, told: Callable[[UUID], None], ready: Callable[[], None]) -> None:
    """Call `told` with the id of each operation that a commit changes, from when `ready` was called.

    Goes on until it is cancelled, or raises what ends the connection: the database's error, or an OSError.
    """
    # A connection of its own, for as long as somebody listens: the pool's are for those who come and go.
    engine = database.dedicated_engine()
    closed = asyncio.Event()
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(_STAY))
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            driver.add_termination_listener(lambda _connection: closed.set())
            await driver.add_listener(CHANNEL, lambda _connection, _pid, _channel, id_: told(UUID(id_)))
            was_read_only = await connection.scalar(text(_IS_READ_ONLY))
            ready()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(ALIVE):
                        await closed.wait()
                async with asyncio.timeout(ALIVE):
                    is_read_only = await connection.scalar(text(_IS_READ_ONLY))
                if is_read_only != was_read_only:  # its successor, which writes, may be elsewhere
                    raise Unreachable("the server has become read-only, or writable")
    finally:
        await engine.dispose()
