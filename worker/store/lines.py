"""Connections to PostgreSQL that are dead and do not tell: a frozen server, a firewall that forgot them."""

import asyncio
import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

GOODBYE = 2
"""Seconds that a server has to acknowledge that a transaction was given up."""


def let_go_of_dead_ones(engine: AsyncEngine) -> None:
    """Have an engine wait for no goodbye of a connection that it gives up, and trust none that is as old."""
    given_up_at = 0.0

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(_connection: Any, record: Any) -> None:
        record.info["since"] = time.monotonic()

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
        # The driver has the server cancel what it is at, and waits for the answer without end.
        asyncio.get_running_loop().call_later(GOODBYE, connection.driver_connection.terminate)

    @event.listens_for(engine.sync_engine, "close")
    def on_close(connection: Any, record: Any) -> None:
        if "given_up" not in record.info:  # idle: no need to wait until the server has taken note
            connection.driver_connection.terminate()
