"""The connection to SQLite or PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool, QueuePool

from worker.config.settings import Settings
from worker.dependency import Condition
from worker.errors import DeviceopsError
from worker.store.dead_connections import REFUSAL_TIMEOUT, ConnectionState
from worker.store.driver import asyncpg
from worker.store.errors import casts_doubt, explain, is_of_connection, is_of_database, is_of_others, is_passing
from worker.store.postgresql import LIFETIME, Login, postgresql_engine, session_settings
from worker.store.sqlite import READ_ONLY, sqlite_engine

Result = TypeVar("Result")

ANSWER_TIMEOUT = 60
"""Seconds after which a transaction counts as one that will get no answer, for the first time."""
CLOSE_TIMEOUT = 3
"""Seconds that a server has to say goodbye."""


def shown(url: URL) -> str:
    """A database's URL as people write it: without the driver's name, the password hidden."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


class Connections(NamedTuple):
    """How many connections a pool keeps at most, how many are in use, and how many are there beyond those kept."""

    size: int
    in_use: int
    overflow: int


def _nobody_asks(_seconds: float) -> None:
    """Let it be."""


class Database:
    """One database. `write` gives a transaction that commits at its end, `read` one consistent snapshot.

    `login` says how to log in to PostgreSQL, and is asked for each connection; None for as the URL says.
    `lock_timeout` is how many seconds a statement waits for what another transaction holds, None for as long as
    it takes (on SQLite: for 30 seconds). `answer_timeout` is how many seconds a transaction gets before whoever
    can try again does so, and how many the server waits for a word of ours in one, None where a person may let it
    wait. `limit` is how many it may take at all before it ends with a TimeoutError, where a caller waits for it:
    each transaction then notes in `condition` how it went. None for any number.
    `for_batches` is whether hardly anything but batches is to be processed, see `PLANS_OF_BATCHES`.
    `refusal_timeout` is as for `ConnectionState`; `beside` is the same database in other hands, with which it is
    shared: of a server that can only read, those who read let go as well.
    `condition` is how it stands with the database, as far as those know who wait for it.
    `on_commit` is told how many seconds each commit took.
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
        beside: "Database | None" = None,
    ) -> None:
        self.url = url
        self.answer_timeout = ANSWER_TIMEOUT if answer_timeout is None else answer_timeout
        self._limit = limit
        self.on_commit: Callable[[float], None] = _nobody_asks
        self.condition = (
            Condition("database", "paused: the database fails", "resumed: the database answers")
            if limit is None
            else Condition("database", "the database fails: calls are answered 503", "the database answers again")
        )
        self._state: ConnectionState = ConnectionState(refusal_timeout) if beside is None else beside._state
        self._login = login
        self._settings = session_settings(lock_timeout, answer_timeout, for_batches=for_batches)
        self.engine = (
            sqlite_engine(url, self._state, lock_timeout)
            if self.is_sqlite
            else self._postgresql(pool_size=4, max_overflow=0, pool_recycle=LIFETIME)
        )

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded kind."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def connections(self) -> Connections:
        """Those of the pool."""
        pool = self.engine.pool  # asked for anew, as giving up on a dead database makes another one
        assert isinstance(pool, QueuePool)
        return Connections(pool.size(), pool.checkedout(), max(pool.overflow(), 0))

    def __str__(self) -> str:
        return shown(self.url)

    @asynccontextmanager
    async def write(self, *, is_counted: bool = True) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits at the end of the block and rolls back on an error.

        `is_counted` is whether `on_commit` is told.
        """
        with self._noting():
            async with within(self._limit), self.engine.begin() as connection:
                with self._doubting():
                    yield connection
                began = time.perf_counter()
        if is_counted:
            self.on_commit(time.perf_counter() - began)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads, and sees one state of the database from first to last."""
        options = (
            {READ_ONLY: True}
            if self.is_sqlite
            else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        with self._noting():
            async with within(self._limit), self.engine.connect() as connection:
                with self._doubting():
                    yield await connection.execution_options(**options)

    def may_pass(self, error: BaseException) -> bool:
        """Whether it may help to try again after an error: see `ConnectionState`."""
        return self._state.may_pass(error)

    def separate(self) -> AsyncEngine:
        """An engine for one connection to PostgreSQL beside the pool's. The caller disposes of it."""
        return self._postgresql(poolclass=NullPool)

    def _postgresql(self, **pool: Any) -> AsyncEngine:
        return postgresql_engine(self.url, self._state, self._settings, self._login, **pool)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """A block that says how it stands with the database where a caller waits, as nobody else does."""
        try:
            yield
        except Exception as error:
            if self._limit is not None and is_of_database(error) and not is_of_others(error):
                self.condition.fails(explain(error), is_refusal=not is_passing(error), database=str(self))
            raise
        if self._limit is not None:
            self.condition.works()

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """A block whose failure may be the connection's: one that can only read would never write again."""
        try:
            yield
        except Exception as error:
            if casts_doubt(error):
                self._state.doubt()
            raise

    async def answered(self, work: Coroutine[Any, Any, Result], seconds: float) -> Result:
        """What some work on this database gives, or a TimeoutError if that takes longer than so many seconds.

        Work that does not even end when it is cancelled, as its clean-up waits for a dead connection, is left
        behind, and the connections that it may hold with it.
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
        """Close every connection; a server that does not answer is not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.engine.dispose()


@asynccontextmanager
async def within(seconds: float | None) -> AsyncIterator[None]:
    """A block that a database gets so many seconds for, then it ends with a TimeoutError; None for any number."""
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
    beside: Database | None = None,
) -> AsyncIterator[Database]:
    """The database of the settings for the length of a block, with the options of `Database`.

    Who we are is read anew for each connection. Failures leave the block as one clear DeviceopsError.
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
        beside=beside,
    )
    try:
        yield database
    except (DBAPIError, PoolTimeout, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if isinstance(error, OSError) and not is_of_connection(error):
            raise  # a file, a pipe or a terminal of the caller's
        raise DeviceopsError(f"database {database}: {explain(error)}") from error
    finally:
        await database.close()
