"""Connections that cannot be had name where to, and only what can pass is waited for."""

import socket
import time
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from worker.config.settings import Settings
from worker.errors import SettingsError
from worker.store.dead_connections import ConnectionState
from worker.store.errors import (
    Unreachable,
    is_access_denied,
    is_data_error,
    is_database_error,
    is_missing,
    is_transient,
    unreachable,
)


def of_server(state: str, words: str = "", statement: str | None = None) -> DBAPIError:
    """What SQLAlchemy raises where a server answers so to a statement, or to a connection."""
    told = Exception(words)
    told.__cause__ = asyncpg.PostgresError.new({"C": state, "M": words})
    return DBAPIError(statement, None, told)


MISSING = [
    unreachable("h", socket.gaierror(socket.EAI_NONAME, "Name or service not known")),
    of_server("3D000"),
    of_server("28000"),
    of_server("42501", "permission denied for database"),
    of_server("08P01", "no such database: d"),
]
REFUSED = [
    of_server("28P01"),
    of_server("08P01", "unsupported startup parameter: lock_timeout"),
    of_server("08P01", "SASL authentication failed"),
    asyncpg.InterfaceError("unsupported authentication method requested by the server: 7"),
    ConnectionError('PostgreSQL server at "h:5432" rejected SSL upgrade'),
    SettingsError("DEVICEOPS_DATABASE_URL: file cannot be read"),
]
PASSING = [
    unreachable("h", socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")),
    unreachable("h", OSError(113, "No route to host")),
    Unreachable("h: does not answer"),
    of_server("25006"),
    of_server("57P03"),
    of_server("53300"),
    of_server("08P01", "query_wait_timeout"),
    of_server("26000", 'prepared statement "s" does not exist', "SELECT"),
    of_server("42P05", 'prepared statement "s" already exists', "SELECT"),
]
FATAL = [of_server("42501", statement="SELECT"), of_server("42P01"), RuntimeError()]


@pytest.mark.parametrize("error", MISSING)
def test_what_is_missing_ends_a_first_start_and_is_waited_for_once_it_was_there(error: Exception) -> None:
    state = ConnectionState()
    assert is_missing(error)
    assert not state.is_retryable(error)
    state.note_connection()
    assert state.is_retryable(error)


@pytest.mark.parametrize("error", REFUSED)
def test_what_refuses_ends_a_first_start_and_is_tried_again_for_a_while_once_it_let_us_in(
    error: Exception,
) -> None:
    state = ConnectionState(refusal_timeout=0.05)
    assert is_access_denied(error)
    assert not state.is_retryable(error)
    state.note_connection()
    assert state.is_retryable(error)
    time.sleep(0.05)
    assert not state.is_retryable(error)
    state.note_connection()  # another trouble has its own time
    assert state.is_retryable(error)


@pytest.mark.parametrize("error", PASSING)
def test_what_passes_is_waited_for(error: Exception) -> None:
    assert is_transient(error)
    assert ConnectionState().is_retryable(error)


@pytest.mark.parametrize("error", FATAL)
def test_what_does_not_pass_is_never_waited_for(error: Exception) -> None:
    state = ConnectionState()
    state.note_connection()
    assert not state.is_retryable(error)


UNUSABLE = [
    of_server("42501", "permission denied for table operations", "INSERT"),
    of_server("42P01", 'relation "operations" does not exist', "SELECT"),
    of_server("42703", 'column "state" does not exist', "SELECT"),
]


@pytest.mark.parametrize("error", [*UNUSABLE, *MISSING, *REFUSED, *PASSING])
def test_what_is_wrong_with_the_database_is_no_defect_for_callers(error: Exception) -> None:
    assert is_database_error(error)
    assert not is_data_error(error)


@pytest.mark.parametrize("error", [of_server("42601"), of_server("23505"), RuntimeError(), KeyError()])
def test_what_is_a_defect_or_the_datas_fault_stays_one(error: Exception) -> None:
    assert not is_database_error(error)


@pytest.mark.parametrize("kind", ["database", "amqp"])
def test_of_an_address_in_a_file_the_user_and_the_password_are_read_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    scheme = "amqp" if kind == "amqp" else "postgresql"
    file = tmp_path / "url"
    file.write_text(f"{scheme}://old:first@host:5001/name\n")
    monkeypatch.setenv(f"DEVICEOPS_{kind.upper()}_URL_FILE", str(file))
    settings = Settings.load()

    def password() -> str:
        fresh = settings.with_broker_login() if kind == "amqp" else settings.with_database_login()
        address = getattr(fresh, f"{kind}_url").get_secret_value()
        return str(address).partition("://")[2]

    assert password() == "old:first@host:5001/name"
    file.write_text(f"{scheme}://new:s%40cond@elsewhere/other\n")
    assert password() == "new:s%40cond@host:5001/name"
    file.write_text("")  # in the middle of being written
    with pytest.raises(SettingsError, match=r"is not a (database|broker) URL"):
        password()
    assert (settings.with_database_login() if kind == "amqp" else settings.with_broker_login()) is settings
    file.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        password()


def test_an_address_that_is_given_otherwise_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICEOPS_AMQP_URL", "amqp://u:p@h/")
    settings = Settings.load()
    assert settings.with_broker_login() is settings
