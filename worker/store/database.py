"""The connection to SQLite or PostgreSQL, and what its errors mean."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from ssl import SSLContext, SSLError
from typing import Any, NamedTuple, TypeVar

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from worker.condition import Condition
from worker.errors import DeviceopsError
from worker.store.lines import let_go_of_dead_ones
from worker.tls import explain as explain_tls
from worker.tls import is_refusal
from worker.tls import trouble as tls_trouble

Result = TypeVar("Result")

CONNECT_TIMEOUT = 10
"""Seconds to wait for a connection."""
ANSWER_TIMEOUT = 60
"""Seconds after which a transaction counts as one that will get no answer, for the first time."""
CLOSE_TIMEOUT = 3
"""Seconds that a server has to say goodbye."""
SQLITE_LOCK_TIMEOUT = 30
"""Seconds to wait for another process's transaction on the same SQLite file."""
SQLITE_CACHE = 65_536
"""KiB of an SQLite file that a connection keeps in memory: reports come in no order that its pages know."""
SQLITE_LOG = 4_000
"""Pages (of 4 KiB) in SQLite's log after which they go to the file: a page that changes often goes once."""
PLANS_OF_BATCHES = {"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan", "jit": "off"}
"""How PostgreSQL plans the statements of batches: once, and by indexes whatever it thinks of the size of tables.

By itself it plans small batches anew each time, which takes longer than to execute them, or keeps a plan of when a
table was small: then every batch reads through the table, until an ANALYZE a minute later.
"""
_READ_ONLY = "deviceops_read_only"
_SQLITE_PASSES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}


class Connections(NamedTuple):
    """How many connections a pool keeps at most, how many are in use, and how many are there beyond those kept."""

    size: int
    in_use: int
    overflow: int


def _nobody_asks(_seconds: float) -> None:
    """Let it be."""


class Database:
    """One database. `write` gives a transaction that commits at its end, `read` one consistent snapshot.

    `tls` is how PostgreSQL is spoken to, None for as its URL says.
    `lock_timeout` is how many seconds a statement waits for what another transaction holds, None for as long as
    it takes (on SQLite: for 30 seconds). `answer_timeout` is how many seconds a transaction gets before whoever
    can try again does so, and how many the server waits for a word of ours in one, None where a person may let it
    wait. `limit` is how many it may take at all before it ends with a TimeoutError, None for any number.
    `for_batches` is whether hardly anything but batches is to be processed, see `PLANS_OF_BATCHES`.
    `condition` is how it stands with the database, as far as those know who wait for it.
    `on_commit` is told how many seconds each commit took.
    """

    def __init__(
        self,
        url: URL,
        *,
        tls: SSLContext | None = None,
        lock_timeout: float | None = None,
        answer_timeout: float | None = None,
        limit: float | None = None,
        for_batches: bool = False,
    ) -> None:
        self.url = url
        self.answer_timeout = ANSWER_TIMEOUT if answer_timeout is None else answer_timeout
        self._limit = limit
        self.on_commit: Callable[[float], None] = _nobody_asks
        self.condition = Condition("database", "paused: the database fails", "resumed: the database answers")
        is_sqlite = url.get_backend_name() == "sqlite"
        self.connect_args = (
            _sqlite_args(lock_timeout)
            if is_sqlite
            else _postgresql_args(tls, lock_timeout, answer_timeout, PLANS_OF_BATCHES if for_batches else {})
        )
        self.engine = (_sqlite_engine if is_sqlite else _postgresql_engine)(url, self.connect_args)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded kind."""
        return self.engine.dialect.name == "sqlite"

    @property
    def connections(self) -> Connections:
        """Those of the pool."""
        pool = self.engine.pool  # asked for anew, as giving up on a dead database makes another one
        assert isinstance(pool, QueuePool)
        return Connections(pool.size(), pool.checkedout(), max(pool.overflow(), 0))

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits at the end of the block and rolls back on an error."""
        async with within(self._limit), self.engine.begin() as connection:
            yield connection
            began = time.perf_counter()
        self.on_commit(time.perf_counter() - began)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads, and sees one state of the database from first to last."""
        async with within(self._limit), self.engine.connect() as connection:
            options = (
                {_READ_ONLY: True}
                if self.is_sqlite
                else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            )
            yield await connection.execution_options(**options)

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
    url: URL,
    *,
    tls: SSLContext | None = None,
    lock_timeout: float | None = None,
    answer_timeout: float | None = None,
    limit: float | None = None,
    for_batches: bool = False,
) -> AsyncIterator[Database]:
    """A database for the length of a block; its failures leave the block as one clear DeviceopsError."""
    database = Database(
        url,
        tls=tls,
        lock_timeout=lock_timeout,
        answer_timeout=answer_timeout,
        limit=limit,
        for_batches=for_batches,
    )
    try:
        yield database
    except (DBAPIError, PoolTimeout, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError | SSLError):
            raise  # a file or a terminal of the caller's
        raise DeviceopsError(f"database {database}: {explain(error)}") from error
    finally:
        await database.close()


def explain(error: BaseException) -> str:
    """A database error in one line, without the statement and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    cause = cause.__cause__ if isinstance(cause.__cause__, asyncpg.PostgresError) else cause
    if (trouble := tls_trouble(cause)) is not None:
        return explain_tls(trouble)
    return " ".join(str(cause).split()) or type(cause).__name__


def is_fault_of_data(error: BaseException) -> bool:
    """Whether the values of a batch broke the transaction: then one of its messages is to blame."""
    if isinstance(error, IntegrityError):
        return True
    cause = _of_driver(error)
    if isinstance(cause, asyncpg.PostgresError):
        return str(cause.sqlstate).startswith(("22", "23"))  # data exception, integrity violation
    return isinstance(cause, asyncpg.DataError | sqlite3.DataError | UnicodeError | OverflowError)


def is_passing(error: BaseException) -> bool:
    """Whether a failure is neither the data's nor the program's: the database is away, full, locked, …"""
    if (trouble := tls_trouble(error)) is not None:
        return not is_refusal(trouble)
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = _of_driver(error)
    if isinstance(cause, sqlite3.OperationalError):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE_PASSES  # the rest is an extended code
    if isinstance(cause, asyncpg.PostgresError):
        return _passes(cause)
    if isinstance(cause, asyncpg.DataError | asyncpg.ClientConfigurationError):
        return False
    # The client's own error comes of a connection that the server ends before anything is asked on it.
    return isinstance(cause, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError)


def _of_driver(error: BaseException) -> BaseException | None:
    """What the driver itself said: SQLAlchemy wraps it, PostgreSQL's twice, but not that of a COPY."""
    if not isinstance(error, DBAPIError):
        return error
    return error.orig if error.orig is None or error.orig.__cause__ is None else error.orig.__cause__


def _passes(error: asyncpg.PostgresError) -> bool:
    # Connection, transaction rollback (deadlock, serialization), resources, not ready, operator, system.
    return str(error.sqlstate).startswith(("08", "25", "40", "53", "55", "57", "58"))


def _postgresql_args(
    tls: SSLContext | None, lock_timeout: float | None, idle_timeout: float | None, plans: Mapping[str, str]
) -> dict[str, Any]:
    # A transaction whose line is dead keeps its locks until the server notices: by itself, after hours.
    timeouts = {"lock_timeout": lock_timeout, "idle_in_transaction_session_timeout": idle_timeout}
    settings = {name: str(int(seconds * 1_000)) for name, seconds in timeouts.items() if seconds is not None}
    settings |= plans
    settings["application_name"] = "deviceops"
    ssl = {} if tls is None else {"ssl": tls}
    return {"timeout": CONNECT_TIMEOUT, "server_settings": settings, **ssl}


def _sqlite_args(lock_timeout: float | None) -> dict[str, Any]:
    return {"timeout": SQLITE_LOCK_TIMEOUT if lock_timeout is None else lock_timeout}


def _postgresql_engine(url: URL, connect_args: dict[str, Any]) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=4,
        max_overflow=0,
        pool_pre_ping=False,
        hide_parameters=True,
        connect_args=connect_args,
    )
    let_go_of_dead_ones(engine)
    return engine


def _sqlite_engine(url: URL, connect_args: dict[str, Any]) -> AsyncEngine:
    path = Path(url.database or "")
    if path.is_dir():
        raise DeviceopsError(f"database {path}: is a directory, not an SQLite file")
    try:  # here, because the driver's thread may complain on its own about a file that it cannot open
        sqlite3.connect(path).close()
    except sqlite3.Error as error:
        raise DeviceopsError(f"database {path}: {error}") from error
    engine = create_async_engine(url, hide_parameters=True, connect_args=connect_args)

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own: on_begin does
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA cache_size = -{SQLITE_CACHE}")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {SQLITE_LOG}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails at once when another one wrote between.
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine
