"""Notifications by PostgreSQL's LISTEN and NOTIFY."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from worker.store.database import Database
from worker.store.errors import Unreachable

LIVENESS_INTERVAL = 10
"""Seconds between two checks that the connection is alive, and the timeout of a check."""
ECHO_TIMEOUT = 3
"""Seconds in which a notification of our own has to arrive through a pooler."""

_NO_IDLE_TIMEOUT = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
"""Disables the idle timeout for this session; PostgreSQL has it since version 14."""
_BACKEND = "SELECT pg_backend_pid()"
_UNSUPPORTED = "the pooler before PostgreSQL passes no notifications on"
_IS_READ_ONLY = "SELECT current_setting('transaction_read_only')"


class NotListening(Unreachable):
    """A pooler between passes no notifications on: it pools transactions."""


async def listen(
    database: Database, channel: str, on_notification: Callable[[str], None], on_ready: Callable[[], None]
) -> None:
    """Call `on_notification` with the payload of each notification of a channel, once `on_ready` was called.

    Runs until it is cancelled. Raises NotListening where a pooler prevents it, or the error that ended the
    connection: the database's, or an OSError.
    """
    # Not a connection of the pool, since it is held for as long as the process runs.
    engine = database.dedicated_engine()
    closed = asyncio.Event()
    expected, arrived = str(uuid4()), asyncio.Event()

    def receive(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload == expected:
            arrived.set()
        else:
            on_notification(payload)

    try:
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            driver.add_termination_listener(lambda _connection: closed.set())
            if driver.is_pooled:
                await _require_session(database, driver)
            async with driver.transaction():  # behind a pooler, statements reach one server only within one
                await driver.add_listener(channel, receive)
            await _require_echo(database, driver, channel, expected, arrived)
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(_NO_IDLE_TIMEOUT))
            was_read_only = await connection.scalar(text(_IS_READ_ONLY))
            on_ready()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LIVENESS_INTERVAL):
                        await closed.wait()
                await _require_echo(database, driver, channel, expected, arrived)  # the pooler's mode may change
                async with asyncio.timeout(LIVENESS_INTERVAL):
                    is_read_only = await connection.scalar(text(_IS_READ_ONLY))
                if is_read_only != was_read_only:  # after a failover the writable server may be another one
                    database.invalidate_connections()
                    raise Unreachable("the server has become read-only, or writable")
    finally:
        await engine.dispose()


async def _require_session(database: Database, driver: Any) -> None:
    """Require that a pooler keeps the session for us: one of transactions lends the last one used to who comes."""
    async with driver.transaction():
        backend = await driver.fetchval(_BACKEND)
    async with database.read() as connection:
        is_lent = await connection.scalar(text(_BACKEND)) == backend
    if is_lent:  # the database itself answers
        raise NotListening(_UNSUPPORTED)


async def _require_echo(
    database: Database, driver: Any, channel: str, payload: str, arrived: asyncio.Event
) -> None:
    """Behind a pooler, require that a notification of our own arrives."""
    if not driver.is_pooled:
        return
    arrived.clear()
    async with database.write(is_counted=False) as connection:
        await connection.execute(
            text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload}
        )
    try:
        async with asyncio.timeout(ECHO_TIMEOUT):
            await arrived.wait()
    except TimeoutError:
        raise NotListening(_UNSUPPORTED) from None
