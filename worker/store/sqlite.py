"""The engine for SQLite; detects that the file was removed, renamed or replaced while in use."""

import os
import sqlite3
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from worker.errors import DeviceopsError
from worker.store.dead_connections import ConnectionState, drop_stale_connections
from worker.store.errors import Unreachable

LOCK_TIMEOUT = 30
"""Seconds to wait for a lock of another process (`timeout` of the driver)."""
CACHE = 65_536
"""Page cache of a connection in KiB; large, since reports arrive in random order of ids."""
LOG = 4_000
"""Pages (4 KiB) in the WAL after which it is checkpointed; large, since pages change often."""
READ_ONLY = "deviceops_read_only"
"""Execution option that marks a read-only transaction."""
_OPENED = "opened"
_ENDS = ("", "-wal", "-shm")
"""Suffixes of a database's files."""

Identity = Sequence[tuple[int, int]]
"""Device and inode of each file of a database."""


def _identity(files: Sequence[str]) -> Identity:
    """Device and inode of the files. Raises OSError if one is missing."""
    return [(found.st_dev, found.st_ino) for found in map(os.stat, files)]


def sqlite_engine(url: URL, state: ConnectionState, lock_timeout: float | None) -> AsyncEngine:
    """Create an engine for an SQLite file; the file is created if missing. Raises DeviceopsError."""
    path = file_of(url) or Path()
    if path.is_dir():
        raise DeviceopsError(f"database {path}: is a directory, not an SQLite file")
    try:  # here, since the driver's thread would log errors of its own
        sqlite3.connect(path).close()
    except sqlite3.Error as error:
        raise DeviceopsError(f"database {path}: {error}") from error
    engine = create_async_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": LOCK_TIMEOUT if lock_timeout is None else lock_timeout},
    )
    files = [f"{path}{end}" for end in _ENDS]

    @event.listens_for(engine.sync_engine, "do_connect")
    def do_connect(dialect: Dialect, _record: object, _arguments: object, parameters: dict[str, Any]) -> Any:
        if not path.exists():
            raise Unreachable(f"{path}: is gone, removed or renamed while in use")
        # mode=rw: a file that was removed must not be replaced by an empty one.
        return dialect.connect(f"file:{quote(str(path))}?mode=rw", uri=True, **parameters)

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun by on_begin, not by the driver
        driver = connection.driver_connection
        # The driver's thread answers the first call only; a close that was cancelled would wait for the second.
        driver.stop = cache(driver.stop)
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA cache_size = -{CACHE}")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {LOG}")
        cursor.execute("SELECT count(*) FROM sqlite_master")  # a read opens the WAL files too
        cursor.close()
        record.info[_OPENED] = _identity(files)

    def check(connection: Connection) -> None:
        """Check that the files are those that the connection has opened. Raises Unreachable."""
        try:
            is_same = _identity(files) == connection.connection.info[_OPENED]
        except OSError:
            is_same = False
        if not is_same:
            state.invalidate()
            raise Unreachable(f"{path}: was removed, renamed or replaced while in use")

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        # IMMEDIATE: a deferred transaction that writes after reading fails if another one wrote in between.
        read_only = connection.get_execution_options().get(READ_ONLY, False)
        if read_only:
            check(connection)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    @event.listens_for(engine.sync_engine, "commit")
    def on_commit(connection: Connection) -> None:
        check(connection)

    drop_stale_connections(engine, state)
    return engine


def file_of(url: URL) -> Path | None:
    """The file of an SQLite database, None for PostgreSQL."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def is_new(url: URL) -> bool:
    """Whether a URL names an SQLite file that does not exist or is empty."""
    path = file_of(url)
    try:
        return path is not None and path.parent.is_dir() and (not path.exists() or path.stat().st_size == 0)
    except OSError:  # reported when the file is opened
        return False
