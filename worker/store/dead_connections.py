"""Detects and replaces dead PostgreSQL connections: frozen server, dropped firewall state, failover."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.store.errors import is_access_denied, is_missing, is_transient

TERMINATE_DELAY = 2
"""Seconds that a server gets to acknowledge the cancellation of an abandoned transaction."""
REFUSAL_TIMEOUT = 60
"""Seconds that refused logins are retried after a connection had succeeded."""
_OURS = "SELECT pid, backend_start{settings} FROM pg_stat_activity WHERE pid = pg_backend_pid()"
# A pooler may have given the backend to other clients: their transactions began after ours was abandoned.
_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"
    " AND xact_start < clock_timestamp() - make_interval(secs => $3)"
)


class ConnectionState:
    """State shared by all pools of one database: invalidated connections, refused logins.

    `refusal_timeout`: seconds that refused logins are retried once a connection had succeeded, since passwords and
    certificates are not replaced everywhere at the same moment.
    """

    def __init__(self, refusal_timeout: float = REFUSAL_TIMEOUT) -> None:
        self.invalidated_at = 0.0
        """Monotonic time; connections made before it are not used again."""
        self._refusal_timeout = refusal_timeout
        self._has_connected = False
        self._refused_since: float | None = None

    def invalidate(self) -> None:
        """Make every pool replace the connections that it has now."""
        self.invalidated_at = time.monotonic()

    def note_connection(self) -> None:
        """Record a successful connection: address and credentials are valid."""
        self._has_connected, self._refused_since = True, None

    def is_retryable(self, error: BaseException) -> bool:
        """Whether a retry may succeed after an error."""
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
    """Make an engine's pool replace connections that are invalidated, or that the driver knows to be closed."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(_connection: Any, record: Any) -> None:
        record.info["since"] = time.monotonic()
        state.note_connection()

    @event.listens_for(engine.sync_engine, "checkout")
    def on_checkout(connection: Any, record: Any, _proxy: object) -> None:
        if "used" not in record.info:  # a new connection fails with an error of its own
            record.info["used"] = True
        elif record.info["since"] < state.invalidated_at:  # otherwise each idle connection would fail once
            raise DisconnectionError("older than an abandoned connection")
        elif is_closed(connection):
            raise DisconnectionError("was closed while it was idle")


def drop_dead_connections(engine: AsyncEngine, state: ConnectionState, settings: Mapping[str, str]) -> None:
    """Make an engine abandon a dead connection to PostgreSQL without waiting, and invalidate all older ones.

    The next connection terminates the abandoned backend: by itself the server may not notice for hours, and the
    transaction's locks would remain; its idle timeouts do not apply to a statement that is running.
    `settings` are set in each session, by the same statement that reads the backend's process id.
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
            connection.driver_connection.terminate()  # raised on checkout above: newer connections stay valid
            return
        state.invalidate()
        record.info["given_up"] = True
        if "backend" in record.info:  # otherwise it was lost before it had a transaction
            left_behind.add((*record.info["backend"], state.invalidated_at))
        # The driver sends a cancel request, and waits for the response without a timeout.
        asyncio.get_running_loop().call_later(TERMINATE_DELAY, connection.driver_connection.terminate)

    @event.listens_for(engine.sync_engine, "close")
    def on_close(connection: Any, record: Any) -> None:
        if "given_up" not in record.info:  # idle: no need to wait for the server
            connection.driver_connection.terminate()
