"""Connections to an SQLite file, as long as it is the file that is there."""

import os
import sqlite3
from collections.abc import Sequence
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
"""Seconds to wait for another process's transaction on the same file."""
CACHE = 65_536
"""KiB of a file that a connection keeps in memory: reports come in no order that its pages know."""
LOG = 4_000
"""Pages (of 4 KiB) in SQLite's log after which they go to the file: a page that changes often goes once."""
READ_ONLY = "deviceops_read_only"
"""The execution option of a transaction that only reads."""
_OPENED = "opened"
_ENDS = ("", "-wal", "-shm")
"""What the names of a database's files end in."""

Identity = Sequence[tuple[int, int]]
"""Which files a database consists of: the device and the inode of each."""


def _identity(files: Sequence[str]) -> Identity:
    """The files as they are there now. Raises OSError if one is not."""
    return [(found.st_dev, found.st_ino) for found in map(os.stat, files)]


def sqlite_engine(url: URL, state: ConnectionState, lock_timeout: float | None) -> AsyncEngine:
    """An engine for an SQLite file, which is made where it has not been there before."""
    path = file_of(url) or Path()
    if path.is_dir():
        raise DeviceopsError(f"database {path}: is a directory, not an SQLite file")
    try:  # here, because the driver's thread may complain on its own about a file that it cannot open
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
        # It has been there: an empty one in its place would take reports, and have none of what there was.
        return dialect.connect(f"file:{quote(str(path))}?mode=rw", uri=True, **parameters)

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own: on_begin does
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA cache_size = -{CACHE}")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {LOG}")
        cursor.execute("SELECT count(*) FROM sqlite_master")  # only what reads opens all of its files
        cursor.close()
        record.info[_OPENED] = _identity(files)

    def check(connection: Connection) -> None:
        """Make sure that the files are those that a connection has opened: others have none of what it commits."""
        try:
            is_same = _identity(files) == connection.connection.info[_OPENED]
        except OSError:
            is_same = False
        if not is_same:
            state.invalidate()
            raise Unreachable(f"{path}: was removed, renamed or replaced while in use")

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails at once when another one wrote between.
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
    """The file of an SQLite database, None for another one."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def is_new(url: URL) -> bool:
    """Whether this is an SQLite file that does not exist, or has nothing in it."""
    path = file_of(url)
    try:
        return path is not None and path.parent.is_dir() and (not path.exists() or path.stat().st_size == 0)
    except OSError:  # what cannot even be looked at is told of when it is opened
        return False
