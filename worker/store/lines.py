"""Connections to PostgreSQL that are dead and do not tell: a frozen server, a firewall that forgot them."""

import asyncio
import time
from datetime import datetime
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

GOODBYE = 2
"""Seconds that a server has to acknowledge that a transaction was given up."""
_OURS = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"


def let_go_of_dead_ones(engine: AsyncEngine) -> None:
    """Have an engine wait for no goodbye of a connection that it gives up, and trust none that is as old.

    The server is told of it on the next connection: by itself it may not notice for hours, and meanwhile what the
    transaction has locked stays so. Its own limit for idle ones does not hold for one that waits in mid-statement.
    """
    given_up_at = 0.0
    left_behind: set[tuple[int, datetime]] = set()

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        record.info["since"] = time.monotonic()
        cursor = connection.cursor()
        cursor.execute(_OURS)
        record.info["backend"] = cursor.fetchone()
        for backend in tuple(left_behind):
            cursor.execute(_END, backend)
            left_behind.discard(backend)
        cursor.close()
        connection.rollback()

    @event.listens_for(engine.sync_engine, "checkout")
    def on_checkout(connection: Any, record: Any, _proxy: object) -> None:
        if record.info["since"] < given_up_at:  # else each idle one would cost a timeout of its own
            connection.driver_connection.terminate()
            raise DisconnectionError("as old as one that was given up")

    @event.listens_for(engine.sync_engine, "invalidate")
    def on_invalidate(connection: Any, record: Any, error: object) -> None:
        nonlocal given_up_at
        if isinstance(error, DisconnectionError):
            return  # ours, of above: it casts no doubt on those that were made since
        given_up_at = time.monotonic()
        record.info["given_up"] = True
        if "backend" in record.info:  # else it was lost before it said which it is, and holds nothing
            left_behind.add(tuple(record.info["backend"]))
        # The driver has the server cancel what it is at, and waits for the answer without end.
        asyncio.get_running_loop().call_later(GOODBYE, connection.driver_connection.terminate)

    @event.listens_for(engine.sync_engine, "close")
    def on_close(connection: Any, record: Any) -> None:
        if "given_up" not in record.info:  # idle: no need to wait until the server has taken note
            connection.driver_connection.terminate()
