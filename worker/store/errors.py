"""Classification of database errors: transient, data, access, missing; and one-line texts of them."""

import errno
import os
import socket
import sqlite3
from ssl import SSLError
from typing import Any

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.config.tls import describe_error as explain_tls
from worker.config.tls import find_error as tls_trouble
from worker.config.tls import is_refusal as is_refusal_of_tls
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
"""Insufficient privilege; undefined table, column, function or schema; data corruption."""

# PgBouncer uses one SQLSTATE, protocol violation, for nearly every error that ends a connection.
_OF_POOLER = "08P01"
_POOLER_MISSES = ("no such database", "no such user", "not allowed")
_POOLER_REFUSES = ("unsupported startup parameter", "authentication failed", "login rejected", "SSL required")

_OF_RULES = ("27", "38", "39", "44", "P0", _INSUFFICIENT_PRIVILEGE)
"""Exceptions of triggers and functions, WITH CHECK OPTION, privileges, row-level security."""
_OF_SESSION = ("26000", "42P05")
"""Undefined or duplicate prepared statement: a pooler has switched the session."""
_QUOTES_ROW = ("23502", "23514", "44000")
"""NOT NULL, CHECK, WITH CHECK OPTION: the detail quotes the row, which must not be logged."""

_UNKNOWN_HOST = {socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY}
"""The name does not exist; other codes mean that no name server responds."""


class Unreachable(ConnectionError):
    """No connection to the database; the message names the host or the file."""


class UnknownHost(Unreachable):
    """The host name does not exist."""


def unreachable(where: str, error: OSError) -> Unreachable:
    """Wrap a failure to connect to a host, or to open a file, in an error that names it."""
    if isinstance(error, socket.gaierror):
        kind = UnknownHost if error.errno in _UNKNOWN_HOST else Unreachable
        return kind(f"{where}: {error.strerror or error}")
    if isinstance(error, TimeoutError) and error.errno is None:
        return Unreachable(f"{where}: does not answer")
    known = error.errno in errno.errorcode  # otherwise the driver's text, which may name several addresses
    return Unreachable(f"{where}: {os.strerror(error.errno or 0) if known else error}")


def is_connection_error(error: OSError) -> bool:
    """Whether an OSError is the database connection's, and not a file's, pipe's or terminal's."""
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
    """Whether the values of a batch caused the error, that is, one of its messages."""
    if isinstance(error, IntegrityError):
        return True
    cause = _of_driver(error)
    if isinstance(cause, asyncpg.PostgresError):
        return _state(cause).startswith(("22", "23"))  # data exception, integrity violation
    return isinstance(cause, asyncpg.DataError | sqlite3.DataError | UnicodeError | OverflowError)


def is_rejected(error: BaseException) -> bool:
    """Whether the database rejects the write permanently: because of its values, or by a rule."""
    cause = _of_driver(error)
    is_of_rule = isinstance(cause, asyncpg.PostgresError) and _state(cause).startswith(_OF_RULES)
    return (is_of_rule or is_data_error(error)) and not is_missing(error)


def is_transient(error: BaseException) -> bool:
    """Whether an error is transient: the database is unreachable, full, locked, restarting, …"""
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
    # asyncpg raises errors of its own for a connection that the server closes during its setup.
    return isinstance(cause, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError)


def is_missing(error: BaseException) -> bool:
    """Whether the database or host does not exist, or the user may not connect to it.

    Permanent at the first connection; later the database may be being renamed or restored.
    """
    cause = _of_driver(error)
    if isinstance(cause, asyncpg.PostgresError):
        if _state(cause) == _OF_POOLER:
            return str(cause).startswith(_POOLER_MISSES) or str(cause).endswith("does not exist")
        # The privilege to connect: for other privileges SQLAlchemy has a statement.
        is_of_connect = isinstance(error, DBAPIError) and error.statement is None
        is_right_to_connect = _state(cause) == _INSUFFICIENT_PRIVILEGE and is_of_connect
        return is_right_to_connect or _state(cause) in (_NO_SUCH_DATABASE, _NO_AUTHORIZATION)
    return isinstance(cause, UnknownHost)


def is_access_denied(error: BaseException) -> bool:
    """Whether the server refuses our credentials or parameters: password, certificate, startup parameter."""
    if (trouble := tls_trouble(error)) is not None:
        return is_refusal_of_tls(trouble)
    cause = _of_driver(error)
    if isinstance(cause, asyncpg.PostgresError):
        is_of_pooler = _state(cause) == _OF_POOLER and any(words in str(cause) for words in _POOLER_REFUSES)
        return is_of_pooler or _state(cause) == _INVALID_PASSWORD
    if isinstance(cause, asyncpg.InterfaceError):
        return "unsupported" in str(cause)  # an authentication method
    # A file of the settings that is being rewritten.
    return isinstance(cause, SettingsError) or (
        isinstance(cause, OSError) and "rejected SSL upgrade" in str(cause)
    )


def is_privilege_missing(error: BaseException) -> bool:
    """Whether the user lacks a privilege; `error` is SQLAlchemy's or the driver adapter's."""
    cause = _of_driver(error)
    causes = (cause, cause.__cause__ if cause is not None else None)
    return any(
        isinstance(each, asyncpg.PostgresError) and _state(each) == _INSUFFICIENT_PRIVILEGE for each in causes
    )


def is_database_error(error: BaseException) -> bool:
    """Whether the database is the cause, transient or not; neither a bug of the program nor the data."""
    if is_transient(error) or is_missing(error) or is_access_denied(error):
        return True
    cause = _of_driver(error)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_code(cause) in _SQLITE_UNUSABLE or str(cause).startswith("no such table")
    return isinstance(cause, asyncpg.PostgresError) and _state(cause) in _UNUSABLE


def is_contention(error: BaseException) -> bool:
    """Whether other transactions caused the error: deadlock, serialization failure, lock timeout."""
    cause = _of_driver(error)
    return isinstance(cause, asyncpg.PostgresError) and (
        _state(cause).startswith("40") or _state(cause) == _LOCK_NOT_AVAILABLE
    )


def invalidates_connections(error: BaseException) -> bool:
    """Whether an error may be caused by the state of a session or its server, which a new connection may not have.

    This includes lock timeouts, but neither deadlocks nor serialization failures.
    """
    cause = _of_driver(error)
    is_conflict = isinstance(cause, asyncpg.PostgresError) and _state(cause).startswith("40")
    return is_database_error(error) and not is_conflict


def is_read_only(error: BaseException) -> bool:
    """Whether a write failed as the session or its server can only read."""
    cause = _of_driver(error)
    return isinstance(cause, asyncpg.PostgresError) and _state(cause) == "25006"


def _of_driver(error: BaseException) -> BaseException | None:
    """The driver's own error: SQLAlchemy wraps it, asyncpg's twice, except that of a COPY."""
    if not isinstance(error, DBAPIError):
        return error
    return error.orig if error.orig is None or error.orig.__cause__ is None else error.orig.__cause__


def _passes(error: Any) -> bool:
    if isinstance(
        error, asyncpg.InvalidCachedStatementError
    ):  # a table was altered: the statement is prepared again
        return True
    if _state(error) in _OF_SESSION:
        return True
    # Connection, transaction rollback (deadlock, serialization), resources, not ready, operator, system.
    return _state(error).startswith(("08", "25", "40", "53", "55", "57", "58"))


def _state(error: Any) -> str:
    return str(error.sqlstate)


def _sqlite_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is the extended code
