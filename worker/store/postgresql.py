"""Connections to PostgreSQL: who we are, read for each one, and how the server is to treat it."""

from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from worker.config.tls import trouble as tls_trouble
from worker.store.dead_connections import ConnectionState, drop_dead_connections, drop_stale_connections
from worker.store.errors import unreachable

CONNECT_TIMEOUT = 10
"""Seconds to wait for a connection."""
LIFETIME = 600
"""Seconds that a connection is used for: one to a server that has a successor would read there for ever."""
PLANS_OF_BATCHES = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan", "jit": "off"}
"""How PostgreSQL plans the statements of batches: once, and by indexes whatever it thinks of the size of tables.

By itself it plans small batches anew each time, which takes longer than to execute them, or keeps a plan of when a
table was small: then every batch reads through the table, until an ANALYZE a minute later.
"""


class Login(NamedTuple):
    """Who we are, and how PostgreSQL is spoken to; without `tls`, as the URL says."""

    user: str | None
    password: str | None
    tls: SSLContext | None = None


def session_settings(
    lock_timeout: float | None, idle_timeout: float | None, *, for_batches: bool
) -> Mapping[str, str]:
    """What each session is to set."""
    # A transaction whose line is dead keeps its locks until the server notices: by itself, after hours.
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
    """An engine for a PostgreSQL; `login` is asked for every connection, None for what the URL says.

    `pool` are options of SQLAlchemy's. What a connection fails of names the host.
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
    # Not as parameters of the start, most of which a pooler such as PgBouncer refuses.
    drop_dead_connections(engine, state, settings)
    return engine


def _places(url: URL) -> list[str]:
    return [f"{url.host or 'localhost'}, port {url.port or 5432}"]
