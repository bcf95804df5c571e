"""`Database`: transactions on SQLite or PostgreSQL, with timeouts and the up/down state of the database."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool, QueuePool

from worker.config import postgresql_url
from worker.config.settings import Settings
from worker.dependency import Dependency
from worker.errors import DeviceopsError
from worker.store.dead_connections import REFUSAL_TIMEOUT, ConnectionState
from worker.store.driver import asyncpg
from worker.store.errors import (
    invalidates_connections,
    is_connection_error,
    is_contention,
    is_database_error,
    is_transient,
    one_line_error,
)
from worker.store.postgresql import LIFETIME, Login, postgresql_engine, session_settings
from worker.store.sqlite import READ_ONLY, sqlite_engine

if TYPE_CHECKING:
    from worker.store.batch_lock import BatchLock

Result = TypeVar("Result")

ANSWER_TIMEOUT = 60
"""Seconds after which the first attempt of a transaction is abandoned as unanswered."""
CLOSE_TIMEOUT = 3
"""Seconds that closing the connections may take."""


def shown(url: URL) -> str:
    """A database's URL as people write it: without the driver's name, the password hidden."""
    if url.get_backend_name() == "postgresql":
        return postgresql_url.shown(url)
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


class Connections(NamedTuple):
    """Connections of a pool: its size, those in use, and the overflow beyond its size."""

    size: int
    in_use: int
    overflow: int


def _ignore_commit(_seconds: float) -> None:
    """Do nothing."""


class Database:
    """One database. `write` is a transaction that commits at its end, `read` a snapshot (REPEATABLE READ).

    - `login`: called for each new connection to PostgreSQL; None uses the URL's credentials.
    - `lock_timeout`: seconds that a statement waits for a lock; None waits without limit (SQLite: 30 seconds).
    - `answer_timeout`: seconds before the first attempt of a retried transaction is abandoned, and the server's
      `idle_in_transaction_session_timeout`; None leaves the latter off, for interactive use.
    - `limit`: seconds after which a transaction ends with a TimeoutError, for callers that wait for a response;
      each transaction then updates `dependency`. None sets no limit.
    - `for_batches`: set `PLANS_OF_BATCHES`, for connections that process mostly batches.
    - `refusal_timeout`: seconds that refused logins are retried, see `ConnectionState`.
    - `shares_state_with`: another `Database` for the same server; connections that one invalidates, both replace.

    `dependency` tracks whether the database is up. `on_commit` is called with the seconds that each commit took.
    """

    def __init__(
        self,
        url: URL,
        *,
        login: Callable[[], Login] | None = None,
        lock_timeout: float | None = None,
        answer_timeout: float | None = None,
        limit: float | None = None,
        for_batches: bool = False,
        refusal_timeout: float = REFUSAL_TIMEOUT,
        shares_state_with: "Database | None" = None,
    ) -> None:
        self.url = url
        self.answer_timeout = ANSWER_TIMEOUT if answer_timeout is None else answer_timeout
        self._limit = limit
        self.on_commit: Callable[[float], None] = _ignore_commit
        self.batch_lock: BatchLock | None = None
        """Acquired by the transactions of batches, if set."""
        self.dependency = (
            Dependency("database", "database unavailable, paused", "database available, resumed")
            if limit is None
            else Dependency("database", "database unavailable, answering 503", "database available again")
        )
        self._state: ConnectionState = (
            ConnectionState(refusal_timeout) if shares_state_with is None else shares_state_with._state
        )
        self._login = login
        self._settings = session_settings(lock_timeout, answer_timeout, for_batches=for_batches)
        self.engine = (
            sqlite_engine(url, self._state, lock_timeout)
            if self.is_sqlite
            else self._postgresql(pool_size=4, max_overflow=0, pool_recycle=LIFETIME)
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is SQLite."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def limit(self) -> float | None:
        """Seconds after which a transaction ends with a TimeoutError; None without a limit."""
        return self._limit

    @property
    def connections(self) -> Connections:
        """The connections of the pool."""
        pool = self.engine.pool  # looked up each time: `dispose` replaces it
        assert isinstance(pool, QueuePool)
        return Connections(pool.size(), pool.checkedout(), max(pool.overflow(), 0))

    def __str__(self) -> str:
        return shown(self.url)

    @asynccontextmanager
    async def write(self, *, is_counted: bool = True, is_batch: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits at the end of the block and rolls back on an error.

        `is_counted` is whether `on_commit` is called, `is_batch` whether to acquire `batch_lock`.
        """
        with self._recording_condition():
            async with time_limit(self._limit), self.engine.connect() as connection:
                if is_batch and self.batch_lock is not None:
                    session: Any = (await connection.get_raw_connection()).driver_connection
                    session.batch_lock = self.batch_lock  # the driver begins with the first statement
                async with connection.begin():
                    with self._invalidating():
                        yield connection
                    began = time.perf_counter()
        if is_counted:
            self.on_commit(time.perf_counter() - began)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A read-only transaction on one snapshot of the database."""
        async with self._reading(self._limit) as connection:
            yield connection

    @asynccontextmanager
    async def read_long(self, idle_timeout: float) -> AsyncIterator[AsyncConnection]:
        """As `read`, without `limit`: for what is read and passed on bit by bit.

        PostgreSQL ends the transaction after `idle_timeout` seconds in which nothing is read.
        """
        async with self._reading(None) as connection:
            if not self.is_sqlite:
                milliseconds = str(int(idle_timeout * 1_000))
                setting = func.set_config("idle_in_transaction_session_timeout", milliseconds, True)
                await connection.execute(select(setting))
            yield connection

    @asynccontextmanager
    async def _reading(self, limit: float | None) -> AsyncIterator[AsyncConnection]:
        options = (
            {READ_ONLY: True}
            if self.is_sqlite
            else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        with self._recording_condition():
            async with time_limit(limit), self.engine.connect() as connection:
                with self._invalidating():
                    yield await connection.execution_options(**options)

    def is_retryable(self, error: BaseException) -> bool:
        """Whether a retry may succeed after an error, see `ConnectionState`."""
        return self._state.is_retryable(error)

    def invalidate_connections(self) -> None:
        """Have the pools replace the connections that they have now."""
        self._state.invalidate()

    def dedicated_engine(self) -> AsyncEngine:
        """An engine for one connection to PostgreSQL outside the pool. The caller disposes of it."""
        return self._postgresql(poolclass=NullPool)

    def _postgresql(self, **pool: Any) -> AsyncEngine:
        return postgresql_engine(self.url, self._state, self._settings, self._login, **pool)

    @contextmanager
    def _recording_condition(self) -> Iterator[None]:
        """Update `condition` from the outcome of the block, if transactions have a `limit`."""
        try:
            yield
        except Exception as error:
            if self._limit is not None and is_database_error(error) and not is_contention(error):
                self.dependency.mark_down(
                    one_line_error(error), is_refusal=not is_transient(error), database=str(self)
                )
            raise
        if self._limit is not None:
            self.dependency.mark_up()

    @contextmanager
    def _invalidating(self) -> Iterator[None]:
        """Invalidate the pooled connections if the block fails in a way that another session might not.

        For example on a server that has become read-only: its connections would never write again.
        """
        try:
            yield
        except Exception as error:
            if invalidates_connections(error):
                self._state.invalidate()
            raise

    async def run_with_timeout(self, work: Coroutine[Any, Any, Result], seconds: float) -> Result:
        """Return the result of `work`, or raise TimeoutError after `seconds`.

        Work that does not end when cancelled, because its clean-up waits for a dead connection, is abandoned
        together with the pool's connections.
        """
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task}, timeout=seconds)
            if task.done():
                return task.result()
            task.cancel()
            await asyncio.wait({task}, timeout=2 * CLOSE_TIMEOUT)
            if not task.done():
                await self.engine.dispose(close=False)
            elif not task.cancelled():
                return task.result()
        finally:
            task.cancel()
        raise TimeoutError(f"does not answer within {seconds:g} s")

    async def close(self) -> None:
        """Close every connection; does not wait longer than `CLOSE_TIMEOUT`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.engine.dispose()


@asynccontextmanager
async def time_limit(seconds: float | None) -> AsyncIterator[None]:
    """Limit a block to `seconds`, then raise a TimeoutError that says so; None sets no limit."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimeoutError(f"does not answer within {seconds:g} s") from error


@asynccontextmanager
async def opened(
    settings: Settings,
    *,
    lock_timeout: float | None = None,
    answer_timeout: float | None = None,
    limit: float | None = None,
    for_batches: bool = False,
    shares_state_with: Database | None = None,
) -> AsyncIterator[Database]:
    """Open the database of the settings for a block, with the options of `Database`.

    Credentials and certificates are read again for each connection. Database errors are raised as DeviceopsError.
    """

    def login() -> Login:
        fresh = settings.with_database_login()
        return Login(fresh.sqlalchemy_url.username, fresh.sqlalchemy_url.password, fresh.database_tls())

    database = Database(
        settings.sqlalchemy_url,
        login=login,
        lock_timeout=lock_timeout,
        answer_timeout=answer_timeout,
        limit=limit,
        for_batches=for_batches,
        refusal_timeout=settings.refusal_timeout,
        shares_state_with=shares_state_with,
    )
    try:
        yield database
    except (DBAPIError, PoolTimeout, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if isinstance(error, OSError) and not is_connection_error(error):
            raise  # the caller's own file, pipe or terminal
        raise DeviceopsError(f"database {database}: {one_line_error(error)}") from error
    finally:
        await database.close()
