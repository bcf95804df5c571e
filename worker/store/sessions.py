"""Sessions of PostgreSQL: on the first suitable server of several, with the settings that statements need.

A pooler such as PgBouncer may give each transaction another session of the server. Behind one, settings are made
in each transaction, and prepared statements have names only if the pooler keeps track of them.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
from asyncpg.transaction import Transaction

from worker.config.postgresql_url import Host, Target
from worker.config.tls import find_error as tls_trouble
from worker.errors import SettingsError
from worker.failover import Failures
from worker.store.batch_lock import BatchLock
from worker.store.errors import Unreachable, is_transient, one_line_error, unreachable

ROLLBACK_TIMEOUT = 3
"""Maximum seconds for the end of a read or of a transaction that failed; then the connection is dropped."""

_CONNECT_ERRORS = (
    OSError,
    SettingsError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_ROLLBACK = "ROLLBACK;"
"""As the driver writes it."""
_OURS = (
    "SELECT pid, backend_start, pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') = 'on'"
    " AS is_read_only FROM pg_stat_activity WHERE pid = pg_backend_pid()"
)
_IS_NAMED = "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = $1)"
_REFUSALS = ("22023", "25001", "42501", "42704", "55P02")
"""Settings: an invalid value, not after a query, no privilege, unknown, cannot be changed now."""
_NAMES = {"read-write": "writable", "primary": "the primary", "standby": "a standby"}
_STATEMENTS = 100
"""Prepared statements that a connection keeps for queries that are given as text, as by default of the driver."""
_LOCKS = 0x646F7073
"""The class of the advisory locks by which our transactions are found behind a pooler."""

# A pooler may have given the backend to other clients: their transactions began after ours was abandoned.
_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"
    " AND xact_start < clock_timestamp() - make_interval(secs => $3)"
)
_END_POOLED = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid = $1 AND objid = $2 AND pid <> pg_backend_pid()"
)


class Backend(NamedTuple):
    """The server's process for a connection; behind a pooler, for the transaction that holds an advisory lock."""

    pid: int | None = None
    started: datetime | None = None
    lock: int | None = None

    def termination(self, age: float) -> tuple[str, tuple[object, ...]]:
        """The statement, with its arguments, that ends it if its transaction is older than `age` seconds."""
        if self.lock is not None:
            return _END_POOLED, (_LOCKS, self.lock)
        return _END, (self.pid, self.started, age)


class DatabaseSession(asyncpg.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection of the driver, with the settings of its session, or of each transaction behind a pooler."""

    server: Host | None = None
    """Where it is connected to."""
    backend = Backend()
    is_pooled = False
    """Whether a pooler is between."""
    names_statements = True
    """Whether prepared statements can be used again in later transactions."""
    batch_lock: BatchLock | None = None
    """To be acquired as the next transaction begins."""
    _server_caps: Any
    _stmt_cache: Any
    _stmt_cache_enabled: bool
    _of_transaction = ""
    _prepared = 0

    async def set_up(self, settings: Mapping[str, str], attributes: str) -> None:
        """Detect a pooler, require `target_session_attrs`, and apply settings. Raises the driver's errors."""
        async with super().transaction():  # in one transaction, statements reach one server
            pid, started, is_standby, is_read_only = await self.fetchrow(_OURS)
            # By a query: what a pooler says of a server at the start may be from before a failover.
            suits = {
                "any": True,
                "read-write": not is_read_only,
                "read-only": is_read_only,
                "primary": not is_standby,
                "standby": is_standby,
            }
            if not suits[attributes]:
                raise asyncpg.TargetServerAttributeNotMatched(f"is not {_NAMES.get(attributes, attributes)}")
            self.is_pooled = pid != self.get_server_pid()  # a pooler answers with a number of its own
            if self.is_pooled:
                self._server_caps = self._server_caps._replace(
                    jit=False
                )  # which the driver would switch off for all
                lock = secrets.randbits(31)
                self.backend = Backend(lock=lock)
                self._of_transaction = (
                    f"SELECT {_set(settings, is_local=True)}pg_advisory_xact_lock({_LOCKS}, {lock})"
                )
                await self.set_for_transaction()  # a setting that is refused is an error now
                self.names_statements = await self._renames_statements()
            else:
                self.backend = Backend(pid, started)
                if settings:
                    await self.execute(f"SELECT {_set(settings, is_local=False)}1")
        if self.names_statements:  # the driver's cache, which gives names too
            self._stmt_cache.set_max_size(_STATEMENTS)
            self._stmt_cache_enabled = True

    async def execute(self, query: str, *arguments: Any, **options: Any) -> str:
        """As the driver's; the statement that begins a transaction also acquires the batch lock.

        A transaction is rolled back within ROLLBACK_TIMEOUT: SQLAlchemy shields that from being cancelled, so on a
        line that died nothing else would end it. The server does it by itself once the connection is dropped.
        """
        if query == _ROLLBACK:
            return await self._roll_back(query, *arguments, **options)
        batch_lock, self.batch_lock = self.batch_lock, None
        if batch_lock is None:
            return await super().execute(query, *arguments, **options)  # type: ignore[no-any-return]
        return await batch_lock.begin(super().execute, query)

    async def _roll_back(self, query: str, *arguments: Any, **options: Any) -> str:
        try:
            async with asyncio.timeout(ROLLBACK_TIMEOUT):
                return await super().execute(query, *arguments, **options)  # type: ignore[no-any-return]
        except TimeoutError:
            self.terminate()
            raise asyncpg.ConnectionDoesNotExistError(
                f"a rollback was not answered within {ROLLBACK_TIMEOUT} s"
            ) from None

    async def prepare(self, query: str, *, name: str | None = None, **options: Any) -> Any:
        """As the driver's. A statement without a name is parsed again at each execution, by the same request."""
        if name is None and self.names_statements:
            self._prepared += 1
            name = f"deviceops_{self._prepared}"
        return await super().prepare(query, name=name, **options)

    def transaction(self, **options: Any) -> Transaction:
        """A transaction of the driver; behind a pooler, with its settings."""
        if self.is_pooled and not self.is_in_transaction():
            return _PooledTransaction(self, **options)
        return super().transaction(**options)

    async def set_type_codec(self, *names: Any, **options: Any) -> None:
        """As the driver's, in a transaction behind a pooler: it prepares a statement and then executes it."""
        if not self.is_pooled:
            await super().set_type_codec(*names, **options)
            return
        async with self.transaction():
            await super().set_type_codec(*names, **options)

    async def set_for_transaction(self) -> None:
        """Apply the settings to a transaction that has begun, and mark it as ours."""
        await self.execute(self._of_transaction)

    async def _renames_statements(self) -> bool:
        """Whether the pooler keeps track of prepared statements: it then gives them names of its own."""
        name = f"deviceops_{secrets.token_hex(8)}"
        statement = await self.prepare("SELECT 1", name=name)
        is_named = bool(await self.fetchval(_IS_NAMED, name))
        if is_named:  # the driver would close it later, on another server perhaps
            await self.execute(f"DEALLOCATE {name}")
        del statement
        return not is_named


class _PooledTransaction(Transaction):  # type: ignore[misc]  # the driver has no types
    def __init__(
        self,
        session: DatabaseSession,
        isolation: str | None = None,
        readonly: bool = False,  # the driver's
        deferrable: bool = False,
    ) -> None:
        super().__init__(session, isolation, readonly, deferrable)
        self._session = session

    async def start(self) -> None:
        await super().start()
        try:
            await self._session.set_for_transaction()
        except asyncpg.PostgresError:
            await self.rollback()
            raise


async def connect(
    target: Target, settings: Mapping[str, str], known_failures: Failures, **arguments: Any
) -> DatabaseSession:
    """Connect to the first server that can be used, and apply settings.

    `arguments` are the driver's. `known_failures` keeps the servers that could not be used. Raises SettingsError
    for a setting of the URL that a server refuses, `Unreachable` with what each server answers, or for one server
    the driver's error.
    """
    failures: list[tuple[Host, Exception]] = []
    wanted = target.session_attributes
    for attributes in ("standby", "any") if wanted == "prefer-standby" else (wanted,):
        for server in known_failures.last(target.servers):
            known_failures.note(server)  # before, as the caller may wait no longer
            try:
                session = await _connect(target, server, attributes, settings, arguments)
            except _CONNECT_ERRORS as error:
                failures.append((server, error))
            else:
                known_failures.forget(server)
                return session
    raise _summary(failures)


async def _connect(
    target: Target, server: Host, attributes: str, settings: Mapping[str, str], arguments: Mapping[str, Any]
) -> DatabaseSession:
    async with asyncio.timeout(target.connect_timeout):
        session: DatabaseSession = await asyncpg.connect(
            **arguments,
            host=server.host,
            port=server.port,
            target_session_attrs="any",  # see set_up
            timeout=None,  # the one above
            statement_cache_size=0,  # no names before `set_up` knows whether there may be any
            server_settings={"application_name": target.application_name},
            connection_class=DatabaseSession,
        )
        session.server = server
        try:
            await session.set_up({**target.settings, **settings}, attributes)
        except asyncpg.PostgresError as error:
            session.terminate()
            if error.sqlstate in _REFUSALS:
                raise SettingsError(f"DEVICEOPS_DATABASE_URL: options: {error}") from error
            raise
        except BaseException:
            session.terminate()
            raise
    return session


def _summary(failures: Sequence[tuple[Host, Exception]]) -> Exception:
    """The error for failures to connect.

    Of several, a server's refusal has precedence, as its standbys would refuse as well; then one that may pass.
    """
    named = [_named(*failure) for failure in failures]
    refusals: list[Exception] = [
        error for error in named if isinstance(error, asyncpg.PostgresError) and not is_transient(error)
    ]
    if refusals or len(named) == 1 or not any(map(is_transient, named)):
        return [*refusals, *named][0]
    described = (
        str(error) if isinstance(error, Unreachable) else f"{server}: {one_line_error(error)}"
        for (server, _), error in zip(failures, named, strict=True)
    )
    return Unreachable("; ".join(dict.fromkeys(described)))


def _named(server: Host, error: Exception) -> Exception:
    """A failure to connect, with the server's name where the driver's error lacks it."""
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return Unreachable(f"{server}: {error}")
    if not isinstance(error, OSError) or tls_trouble(error) is not None:
        return error
    named = unreachable(str(server), error)
    named.__cause__ = error
    return named


def _set(settings: Mapping[str, str], *, is_local: bool) -> str:
    """Calls that make settings, each with a comma after it."""

    def quoted(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    local = str(is_local).lower()
    return "".join(f"set_config({quoted(name)}, {quoted(value)}, {local}), " for name, value in settings.items())
