"""Connections that are not to be trusted any more: dead and silent, closed, or of a server that has changed."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.store.errors import is_access_denied, is_missing, is_transient

GOODBYE = 2
"""Seconds that a server has to acknowledge that a transaction was given up."""
REFUSAL_TIMEOUT = 60
"""Seconds that a refusal is tried again for where there was a connection before."""
_OURS = "SELECT pid, backend_start{settings} FROM pg_stat_activity WHERE pid = pg_backend_pid()"
# A pooler may have lent the backend to others by now: theirs is no transaction that began before we gave it up.
_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"
    " AND xact_start < clock_timestamp() - make_interval(secs => $3)"
)


class ConnectionState:
    """What the connections to a database have shown of it so far; all pools of one database share it.

    `refusal_timeout` is how many seconds a refusal is tried again for, once there was a connection: a password or
    a certificate is never changed everywhere at once.
    """

    def __init__(self, refusal_timeout: float = REFUSAL_TIMEOUT) -> None:
        self.invalidated_at = 0.0
        """What is older than this moment, by the monotonic clock, is not used again."""
        self._refusal_timeout = refusal_timeout
        self._has_connected = False
        self._refused_since: float | None = None

    def invalidate(self) -> None:
        """Have no pool hand out again what it has by now."""
        self.invalidated_at = time.monotonic()

    def note_connection(self) -> None:
        """Take note that a connection was made: the address and the password are right."""
        self._has_connected, self._refused_since = True, None

    def is_retryable(self, error: BaseException) -> bool:
        """Whether trying again may help after an error."""
        if is_transient(error) or not self._has_connected:
            return is_transient(error)
        if is_access_denied(error):
            now = time.monotonic()
            self._refused_since = self._refused_since or now
            return now - self._refused_since < self._refusal_timeout
        return is_missing(error)


def drop_stale_connections(
    engine: AsyncEngine, state: ConnectionState, is_closed: Callable[[Any], bool] = lambda _connection: False
) -> None:
    """Have an engine's pool hand out nothing that is older than a doubt, or that the driver knows to be closed."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(_connection: Any, record: Any) -> None:
        record.info["since"] = time.monotonic()
        state.note_connection()

    @event.listens_for(engine.sync_engine, "checkout")
    def on_checkout(connection: Any, record: Any, _proxy: object) -> None:
        if "used" not in record.info:  # a new one: if it is of no use either, it says itself why
            record.info["used"] = True
        elif record.info["since"] < state.invalidated_at:  # else each idle one would cost a failure of its own
            raise DisconnectionError("as old as one that was given up")
        elif is_closed(connection):
            raise DisconnectionError("was closed while it was idle")


def drop_dead_connections(engine: AsyncEngine, state: ConnectionState, settings: Mapping[str, str]) -> None:
    """Have an engine wait for no goodbye of a connection to PostgreSQL that it gives up, and trust none as old.

    The server is told of it on the next connection: by itself it may not notice for hours, and meanwhile what the
    transaction has locked stays so. Its own limit for idle ones does not hold for one that waits in mid-statement.
    `settings` are set in each session, by the statement that asks which it is.
    """
    setting = "".join(f", set_config('{name}', '{value}', false)" for name, value in settings.items())
    ours = _OURS.format(settings=setting)
    left_behind: set[tuple[int, datetime, float]] = set()

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(ours)
        record.info["backend"] = cursor.fetchone()[:2]
        for backend in tuple(left_behind):
            pid, started, given_up = backend
            cursor.execute(_END, (pid, started, time.monotonic() - given_up))
            left_behind.discard(backend)
        cursor.close()
        connection.commit()

    @event.listens_for(engine.sync_engine, "invalidate")
    def on_invalidate(connection: Any, record: Any, error: object) -> None:
        if isinstance(error, DisconnectionError):
            connection.driver_connection.terminate()  # ours, of above: no doubt about those made since, no goodbye
            return
        state.invalidate()
        record.info["given_up"] = True
        if "backend" in record.info:  # else it was lost before it said which it is, and holds nothing
            left_behind.add((*record.info["backend"], state.invalidated_at))
        # The driver has the server cancel what it is at, and waits for the answer without end.
        asyncio.get_running_loop().call_later(GOODBYE, connection.driver_connection.terminate)

    @event.listens_for(engine.sync_engine, "close")
    def on_close(connection: Any, record: Any) -> None:
        if "given_up" not in record.info:  # idle: no need to wait until the server has taken note
            connection.driver_connection.terminate()
