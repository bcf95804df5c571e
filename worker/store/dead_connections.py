"""Detects and replaces dead PostgreSQL connections: frozen server, dropped firewall state, failover."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.store.errors import is_access_denied, is_missing, is_privilege_missing, is_transient

if TYPE_CHECKING:
    from worker.store.sessions import Backend

TERMINATE_DELAY = 2
"""Seconds that a server gets to acknowledge the cancellation of an abandoned transaction."""
REFUSAL_TIMEOUT = 60
"""Seconds that refused logins are retried after a connection had succeeded."""


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


def drop_dead_connections(engine: AsyncEngine, state: ConnectionState) -> None:
    """Make an engine abandon a dead connection to PostgreSQL without waiting, and invalidate all older ones.

    The next connection terminates the abandoned backend: by itself the server may not notice for hours, and the
    transaction's locks would remain; its idle timeouts do not apply to a statement that is running.
    """
    left_behind: set[tuple[Backend, float]] = set()

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        for abandoned in tuple(left_behind):
            backend, given_up = abandoned
            cursor = connection.cursor()
            try:
                cursor.execute(*backend.termination(time.monotonic() - given_up))
            except Exception as error:
                connection.rollback()
                if not is_privilege_missing(error):  # after a change of the user; it is ended by its timeouts
                    raise
            cursor.close()
            connection.commit()
            left_behind.discard(abandoned)

    @event.listens_for(engine.sync_engine, "invalidate")
    def on_invalidate(connection: Any, record: Any, error: object) -> None:
        if isinstance(error, DisconnectionError):
            connection.driver_connection.terminate()  # raised on checkout above: newer connections stay valid
            return
        state.invalidate()
        record.info["given_up"] = True
        left_behind.add((connection.driver_connection.backend, state.invalidated_at))
        # The driver sends a cancel request, and waits for the response without a timeout.
        asyncio.get_running_loop().call_later(TERMINATE_DELAY, connection.driver_connection.terminate)

    @event.listens_for(engine.sync_engine, "close")
    def on_close(connection: Any, record: Any) -> None:
        if "given_up" not in record.info:  # idle: no need to wait for the server
            connection.driver_connection.terminate()
