"""The engine for PostgreSQL: credentials are read for each connection, settings apply to each session."""

from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from worker.config.tls import find_error as tls_trouble
from worker.store.dead_connections import ConnectionState, drop_dead_connections, drop_stale_connections
from worker.store.errors import unreachable

CONNECT_TIMEOUT = 10
"""Timeout of a connection attempt in seconds."""
LIFETIME = 600
"""Seconds after which a connection is replaced, so that reads move to a new primary."""
PLANS_OF_BATCHES = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan", "jit": "off"}
"""Settings that make PostgreSQL use generic plans and indexes for the statements of batches.

By default it plans each small batch, which takes longer than executing it, or keeps a plan from when a table was
small: then every batch scans the table until the next ANALYZE.
"""


class Login(NamedTuple):
    """Credentials and TLS context for PostgreSQL; without `tls`, the URL's sslmode applies."""

    user: str | None
    password: str | None
    tls: SSLContext | None = None


def session_settings(
    lock_timeout: float | None, idle_timeout: float | None, *, for_batches: bool
) -> Mapping[str, str]:
    """Settings of each session; timeouts are given in seconds."""
    # A transaction whose connection is dead keeps its locks until the server notices, by default after hours.
    timeouts = {"lock_timeout": lock_timeout, "idle_in_transaction_session_timeout": idle_timeout}
    settings = {name: str(int(seconds * 1_000)) for name, seconds in timeouts.items() if seconds is not None}
    return settings | (PLANS_OF_BATCHES if for_batches else {})


def postgresql_engine(
    url: URL,
    state: ConnectionState,
    settings: Mapping[str, str],
    login: Callable[[], Login] | None,
    **pool: Any,
) -> AsyncEngine:
    """Create an engine; `login` is called for every connection, None uses the URL's credentials.

    `pool` are options of SQLAlchemy's pool. Connection errors name the host.
    """
    engine = create_async_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": CONNECT_TIMEOUT, "server_settings": {"application_name": "deviceops"}},
        **pool,
    )
    where = ", ".join(_places(url))

    @event.listens_for(engine.sync_engine, "do_connect")
    def do_connect(dialect: Dialect, _record: object, arguments: Any, parameters: dict[str, Any]) -> Any:
        if login is not None:
            user, password, tls = login()
            given = {"user": user, "password": password, "ssl": tls}
            parameters = parameters | {name: value for name, value in given.items() if value is not None}
        try:
            return dialect.connect(*arguments, **parameters)
        except OSError as error:
            if tls_trouble(error) is not None:
                raise
            raise unreachable(where, error) from error

    drop_stale_connections(engine, state, lambda connection: bool(connection.driver_connection.is_closed()))
    # Not as startup parameters, most of which PgBouncer refuses.
    drop_dead_connections(engine, state, settings)
    return engine


def _places(url: URL) -> list[str]:
    return [f"{url.host or 'localhost'}, port {url.port or 5432}"]
