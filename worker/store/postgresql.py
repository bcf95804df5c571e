"""The engine for PostgreSQL: credentials are read for each connection, settings apply to each session."""

from collections.abc import Callable, Mapping
from functools import partial
from ssl import SSLContext
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from worker.config import postgresql_url
from worker.failover import Failures
from worker.store.dead_connections import ConnectionState, drop_dead_connections, drop_stale_connections

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
    from worker.store import sessions  # here, as it loads the driver

    target = postgresql_url.target(url)
    bare = URL.create(url.drivername, url.username, url.password, database=url.database)
    engine = create_async_engine(bare, hide_parameters=True, **pool)
    failures = Failures()

    @event.listens_for(engine.sync_engine, "do_connect")
    def do_connect(dialect: Dialect, _record: object, _arguments: Any, parameters: dict[str, Any]) -> Any:
        given: dict[str, Any] = {"ssl": target.sslmode}
        if login is not None:
            user, password, tls = login()
            given |= {"user": user, "password": password, "ssl": tls or target.sslmode}
        known = {name: value for name, value in given.items() if value is not None}
        creator = partial(sessions.connect, target, settings, failures)
        return dialect.connect(async_creator_fn=creator, **parameters | known)

    drop_stale_connections(engine, state, lambda connection: bool(connection.driver_connection.is_closed()))
    drop_dead_connections(engine, state)
    return engine
