"""What a database's errors mean: to be tried again, the data's, ours; and each in one line."""

import errno
import os
import socket
import sqlite3
from ssl import SSLError
from typing import Any

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.config.tls import explain as explain_tls
from worker.config.tls import is_refusal as is_refusal_of_tls
from worker.config.tls import trouble as tls_trouble
from worker.errors import SettingsError
from worker.store.driver import asyncpg

_SQLITE_PASSES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
_SQLITE_UNUSABLE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
}

_INVALID_PASSWORD = "28P01"  # noqa: S105  # a state of SQL
_INSUFFICIENT_PRIVILEGE = "42501"
_LOCK_NOT_AVAILABLE = "55P03"
_NO_SUCH_DATABASE, _NO_AUTHORIZATION = "3D000", "28000"
_UNUSABLE = (_INSUFFICIENT_PRIVILEGE, "42P01", "42703", "42883", "3F000", "XX001", "XX002")
"""No right; no such table, column, function or schema; damaged."""

# PgBouncer says nearly everything that ends a connection with the same state, a violation of the protocol.
_OF_POOLER = "08P01"
_POOLER_MISSES = ("no such database", "no such user", "not allowed")
_POOLER_REFUSES = ("unsupported startup parameter", "authentication failed", "login rejected", "SSL required")

_OF_RULES = ("27", "38", "39", "44", "P0", _INSUFFICIENT_PRIVILEGE)
"""Triggers and functions that raise, a view's check, rights and policies for rows: some rows only, or all."""
_OF_SESSION = ("26000", "42P05")
"""A prepared statement that a session has not, or has already: a pooler has lent another one."""
_QUOTES_ROW = ("23502", "23514", "44000")
"""A column that may not be null, a check, a view's check: PostgreSQL quotes the row, which belongs in no log."""

_UNKNOWN_HOST = {socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY}
"""That a name is unknown, not that no server of names answers."""


class Unreachable(ConnectionError):
    """No connection can be had; the message names the host, or the file."""


class UnknownHost(Unreachable):
    """A name that no server of names knows."""


def unreachable(where: str, error: OSError) -> Unreachable:
    """The failure to connect to a host, or to open a file, with its name."""
    if isinstance(error, socket.gaierror):
        kind = UnknownHost if error.errno in _UNKNOWN_HOST else Unreachable
        return kind(f"{where}: {error.strerror or error}")
    if isinstance(error, TimeoutError) and error.errno is None:
        return Unreachable(f"{where}: does not answer")
    known = error.errno in errno.errorcode  # else the driver's words, which may be about several addresses
    return Unreachable(f"{where}: {os.strerror(error.errno or 0) if known else error}")


def is_connection_error(error: OSError) -> bool:
    """Whether it is a database that failed so, and no file, pipe or terminal of a caller's."""
    return isinstance(error, ConnectionError | TimeoutError | SSLError) and not isinstance(error, BrokenPipeError)


def one_line_error(error: BaseException) -> str:
    """A database error in one line, without the statement and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    cause = cause.__cause__ if isinstance(cause.__cause__, asyncpg.PostgresError) else cause
    if (trouble := tls_trouble(cause)) is not None:
        return explain_tls(trouble)
    quotes_row = isinstance(cause, asyncpg.PostgresError) and _state(cause) in _QUOTES_ROW
    return " ".join(str(cause.args[0] if quotes_row else cause).split()) or type(cause).__name__


def is_data_error(error: BaseException) -> bool:
    """Whether the values of a batch broke the transaction: then one of its messages is to blame."""
    if isinstance(error, IntegrityError):
        return True
    cause = _of_driver(error)
    if isinstance(cause, asyncpg.PostgresError):
        return _state(cause).startswith(("22", "23"))  # data exception, integrity violation
    return isinstance(cause, asyncpg.DataError | sqlite3.DataError | UnicodeError | OverflowError)


def is_rejected(error: BaseException) -> bool:
    """Whether a database refuses for good what was to be written, be it for its values or whatever they are."""
    cause = _of_driver(error)
    is_of_rule = isinstance(cause, asyncpg.PostgresError) and _state(cause).startswith(_OF_RULES)
    return (is_of_rule or is_data_error(error)) and not is_missing(error)


def is_transient(error: BaseException) -> bool:
    """Whether a failure is neither the data's nor the program's: the database is unreachable, full, locked, …"""
    if is_access_denied(error) or is_missing(error):
        return False
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = _of_driver(error)
    if isinstance(cause, sqlite3.OperationalError):
        return _sqlite_code(cause) in _SQLITE_PASSES
    if isinstance(cause, asyncpg.PostgresError):
        return _passes(cause)
    if isinstance(cause, asyncpg.DataError | asyncpg.ClientConfigurationError):
        return False
    # The client's own error comes of a connection that the server ends before anything is asked on it.
    return isinstance(cause, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError)


def is_missing(error: BaseException) -> bool:
    """Whether there is no such database or host, or it lets the user in no more, though the password may be right.

    It will not pass where that has never been otherwise; a database that was there may be renamed or restored.
    """
    cause = _of_driver(error)
    if isinstance(cause, asyncpg.PostgresError):
        if _state(cause) == _OF_POOLER:
            return str(cause).startswith(_POOLER_MISSES)
        # The right to connect: SQLAlchemy knows of a statement where it is another one that is missing.
        is_of_connect = isinstance(error, DBAPIError) and error.statement is None
        is_right_to_connect = _state(cause) == _INSUFFICIENT_PRIVILEGE and is_of_connect
        return is_right_to_connect or _state(cause) in (_NO_SUCH_DATABASE, _NO_AUTHORIZATION)
    return isinstance(cause, UnknownHost)


def is_access_denied(error: BaseException) -> bool:
    """Whether what we show or say of ourselves is refused: a password, a certificate, a parameter."""
    if (trouble := tls_trouble(error)) is not None:
        return is_refusal_of_tls(trouble)
    cause = _of_driver(error)
    if isinstance(cause, asyncpg.PostgresError):
        is_of_pooler = _state(cause) == _OF_POOLER and any(words in str(cause) for words in _POOLER_REFUSES)
        return is_of_pooler or _state(cause) == _INVALID_PASSWORD
    if isinstance(cause, asyncpg.InterfaceError):
        return "unsupported" in str(cause)  # a way to authenticate
    # Of the settings, a file: another one writes it anew, and may be in the middle.
    return isinstance(cause, SettingsError) or (
        isinstance(cause, OSError) and "rejected SSL upgrade" in str(cause)
    )


def is_database_error(error: BaseException) -> bool:
    """Whether something is wrong with the database, whatever mends it: no defect of ours, and no data's fault."""
    if is_transient(error) or is_missing(error) or is_access_denied(error):
        return True
    cause = _of_driver(error)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_code(cause) in _SQLITE_UNUSABLE or str(cause).startswith("no such table")
    return isinstance(cause, asyncpg.PostgresError) and _state(cause) in _UNUSABLE


def is_contention(error: BaseException) -> bool:
    """Whether other transactions were in the way: that says nothing of the database, nor of a connection."""
    cause = _of_driver(error)
    return isinstance(cause, asyncpg.PostgresError) and (
        _state(cause).startswith("40") or _state(cause) == _LOCK_NOT_AVAILABLE
    )


def invalidates_connections(error: BaseException) -> bool:
    """Whether a failure may be the state of a session or of its server, which another one need not share.

    So may a limit for locks, but not what two transactions did to each other.
    """
    cause = _of_driver(error)
    is_conflict = isinstance(cause, asyncpg.PostgresError) and _state(cause).startswith("40")
    return is_database_error(error) and not is_conflict


def _of_driver(error: BaseException) -> BaseException | None:
    """What the driver itself said: SQLAlchemy wraps it, PostgreSQL's twice, but not that of a COPY."""
    if not isinstance(error, DBAPIError):
        return error
    return error.orig if error.orig is None or error.orig.__cause__ is None else error.orig.__cause__


def _passes(error: Any) -> bool:
    if isinstance(error, asyncpg.InvalidCachedStatementError):  # a table was altered: to be planned again
        return True
    if _state(error) in _OF_SESSION:
        return True
    # Connection, transaction rollback (deadlock, serialization), resources, not ready, operator, system.
    return _state(error).startswith(("08", "25", "40", "53", "55", "57", "58"))


def _state(error: Any) -> str:
    return str(error.sqlstate)


def _sqlite_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is an extended code
