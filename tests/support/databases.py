"""Databases for the tests, each fresh and migrated, and what the product stored there, read by plain SQL."""

import asyncio
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy import Boolean, Row, Uuid, delete, make_url, text, update

from tests.support.rules import SPELLINGS, STATES, counters_of
from worker.store.database import Database
from worker.store.outbox import LOG
from worker.store.schema import migrate
from worker.store.tables import change_cursors, metadata

COUNTERS = tuple(counters_of([]))
"""The names of an operation's counters."""

NewDatabase = Callable[[], str]
"""Makes a fresh, migrated database and gives its URL; the database is gone after the test."""

T = TypeVar("T")

_NAMES = {code: name for name, spellings in SPELLINGS.items() for code in spellings}


def in_a_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that runs in a thread of its own: the caller's may have a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


_FINGERPRINT = """
SELECT md5(string_agg(fact, E'\\n' ORDER BY fact)) FROM (
    SELECT concat_ws(' ', c.relname, c.relkind, c.relpersistence, c.relacl, c.reloptions, a.attname,
        a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation,
        pg_get_expr(d.adbin, d.adrelid)) AS fact
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname !~ '^(pg_|information_schema)'
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    UNION ALL SELECT pg_get_indexdef(indexrelid) || indisvalid FROM pg_index
    WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
    UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger
    UNION ALL SELECT proname || prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT nspname || nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_'
    UNION ALL SELECT polname FROM pg_policy UNION ALL SELECT extname FROM pg_extension
    UNION ALL SELECT evtname FROM pg_event_trigger UNION ALL SELECT pubname FROM pg_publication
    UNION ALL SELECT rulename || tablename FROM pg_rules WHERE schemaname = 'public'
    UNION ALL SELECT setconfig::text FROM pg_db_role_setting s JOIN pg_database b ON b.oid = s.setdatabase
    WHERE b.datname = current_database()
    UNION ALL SELECT concat_ws(' ', encoding, datcollate, datallowconn, datconnlimit, datacl, datdba)
    FROM pg_database WHERE datname = current_database()
    UNION ALL SELECT version_num FROM alembic_version
) AS facts
"""
"""Of everything in a database that a test may change, but for rows and sequences."""
_OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_USED = "SELECT array_remove(ARRAY[{}], NULL)".format(
    ", ".join(f"CASE WHEN EXISTS (SELECT FROM {name}) THEN '{name}' END" for name in metadata.tables)
)
_SEQUENCES = "pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
_RESTART = f"SELECT setval(oid::regclass, 1, false) FROM {_SEQUENCES}"  # noqa: S608  # our constants
_BEGIN_LOG = f"INSERT INTO change_cursors (name, position) VALUES ('{LOG}', 0)"  # noqa: S608  # as a migration


class PostgresqlServer:
    """Makes databases on a server, as copies of one that is migrated once.

    A database that a test has left with the schema and the settings that it had is emptied and used again: to drop
    one, the server writes a checkpoint, which takes a second where the disk is slow.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._template = self._new_name()
        self._spare: list[str] = []
        self._execute(f"CREATE DATABASE {self._template}")
        in_a_thread(_migrate(self._url_of(self._template)))
        self._fingerprint = in_a_thread(self._read_fingerprint())

    def create(self, *, empty: bool = False) -> str:
        """Make a database, migrated unless it is to be empty, and give its URL."""
        if self._spare and not empty:
            return self._spare.pop()
        name = self._new_name()
        self._execute(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else self._template}")
        return self._url_of(name)

    def release(self, url: str) -> None:
        """Empty a database for another test, or drop it."""
        if in_a_thread(self._is_emptied(url)):
            self._spare.append(url)
        else:
            self.drop(url)

    def drop(self, url: str) -> None:
        """Remove a database, also when something is still connected."""
        self._execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def close(self) -> None:
        """Remove the template, and what is spare."""
        for url in (*self._spare, self._url_of(self._template)):
            self.drop(url)

    @staticmethod
    def _new_name() -> str:
        return f"deviceops_test_{secrets.token_hex(8)}"

    def _url_of(self, name: str) -> str:
        url = make_url(self._url).set(drivername="postgresql+asyncpg", database=name)
        return url.render_as_string(hide_password=False)

    async def _read_fingerprint(self) -> str:
        connection = await asyncpg.connect(self._url, database=self._template)
        try:
            return str(await connection.fetchval(_FINGERPRINT))
        finally:
            await connection.close()

    async def _is_emptied(self, url: str) -> bool:
        try:
            connection = await asyncpg.connect(self._url, database=make_url(url).database, timeout=5)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        try:
            await connection.execute(f"SELECT pg_terminate_backend(pid) {_OTHERS}")
            for _ in range(100):
                if not await connection.fetchval(f"SELECT count(*) {_OTHERS}"):
                    break
                await asyncio.sleep(0.01)
            else:
                return False
            if await connection.fetchval(_FINGERPRINT) != self._fingerprint:
                return False
            if used := await connection.fetchval(_USED):
                await connection.execute(f"TRUNCATE {', '.join(used)}")
                await connection.execute(_BEGIN_LOG)
            await connection.execute(_RESTART)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        finally:
            await connection.close(timeout=5)
        return True

    def _execute(self, statement: str) -> None:
        in_a_thread(self._run(statement))

    async def _run(self, statement: str) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


class SqliteFiles:
    """Makes SQLite files, as copies of one that is migrated once."""

    def __init__(self, template: Path) -> None:
        self._template = template
        in_a_thread(_migrate(_sqlite_url(template)))

    def create(self, directory: Path) -> str:
        """Make a file in a directory and give its URL."""
        path = directory / f"deviceops-{secrets.token_hex(8)}.db"
        shutil.copyfile(self._template, path)
        return _sqlite_url(path)


def _sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def _migrate(url: str) -> None:
    database = Database(make_url(url))
    try:
        await migrate(database)
    finally:
        await database.close()


async def cleared(url: str) -> None:
    """Make the database at a URL as good as fresh."""
    database = Database(make_url(url))
    try:
        await clear(database)
    finally:
        await database.close()


async def clear(database: Database) -> None:
    """Make a database as good as fresh."""
    async with database.write() as connection:
        for table in metadata.tables.values():
            if table is not change_cursors:
                await connection.execute(delete(table))
        await connection.execute(delete(change_cursors).where(change_cursors.c.name != LOG))
        await connection.execute(update(change_cursors).values(position=0))


@dataclass
class StoredDeviceOperation:
    """A device operation; `history` counts (state, verdict) of the activity that was applied or late.

    `reached` is the history as documents have it.
    """

    state: str
    dispatched: bool
    reached: list[tuple[str, datetime]]
    history: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass
class StoredOperation:
    """An operation; `states` is its own history, oldest first."""

    operation_type: str | None
    expected: int | None
    state: str
    counters: dict[str, int]
    has_tripped: bool = False
    """Whether the abort threshold was crossed."""
    devices: dict[UUID, StoredDeviceOperation] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)

    def recount(self) -> dict[str, int]:
        """The counters as they should be, from the rows of the device operations."""
        return counters_of([(device.state, device.dispatched) for device in self.devices.values()])


@dataclass
class Stored:
    """What a database holds. `dead_letters` counts the open ones by reason, operation and device."""

    operations: dict[UUID, StoredOperation]
    dead_letters: Counter[tuple[str, UUID | None, UUID | None]]


def _reached(text: str) -> list[tuple[str, datetime]]:
    entries = [text[start : start + 18].split("=") for start in range(0, len(text), 18)]
    first = datetime.min.replace(tzinfo=UTC)
    times = {_NAMES[int(code)]: first + timedelta(microseconds=int(time, 16)) for code, time in entries}
    assert len(times) == len(entries), text
    return [(state, times[state]) for state in STATES if state in times]


async def read(database: Database) -> Stored:
    """Everything that the product stored, in one snapshot. Fails on rows whose owner is missing."""

    async def select(sql: str, *ids: str, **types: Any) -> list[Row[Any]]:
        columns = {**dict.fromkeys(ids, Uuid()), **types}
        result = await connection.execute(text(sql).columns(**columns) if columns else text(sql))
        return list(result)

    async with database.read() as connection:
        operations = {
            row.id: StoredOperation(
                row.operation_type,
                row.expected_device_count,
                row.state,
                {name: getattr(row, name) for name in COUNTERS},
                row.tripped is not None,
            )
            for row in await select("SELECT * FROM operations", "id")
        }
        for row in await select("SELECT operation_id, state FROM operation_activity ORDER BY id", "operation_id"):
            operations[row.operation_id].states.append(row.state)
        devices = {}
        for row in await select(
            "SELECT id, operation_id, device_id, state, dispatched, reached FROM device_operations",
            *("id", "operation_id", "device_id"),
            dispatched=Boolean(),
        ):
            devices[row.id] = StoredDeviceOperation(_NAMES[row.state], row.dispatched, _reached(row.reached))
            operations[row.operation_id].devices[row.device_id] = devices[row.id]
        history = "SELECT device_operation_id, state, verdict FROM device_operation_activity"
        for row in await select(history, "device_operation_id"):
            if row.verdict in ("applied", "late"):
                devices[row.device_operation_id].history[_NAMES[row.state], row.verdict] += 1
        letters = await select(
            "SELECT reason, operation_id, device_id FROM dead_letters WHERE status = 'open'",
            *("operation_id", "device_id"),
        )
    return Stored(operations, Counter((row.reason, row.operation_id, row.device_id) for row in letters))


async def dead_letters(database: Database) -> list[tuple[str, str, int]]:
    """Reason, detail and attempts of every dead letter, oldest first."""
    async with database.read() as connection:
        rows = await connection.execute(text("SELECT reason, detail, attempts FROM dead_letters ORDER BY id"))
        return [(row.reason, row.detail, row.attempts) for row in rows]


async def kept_body(database: Database) -> bytes:
    """The body of the only dead letter."""
    async with database.read() as connection:
        [body] = (await connection.execute(text("SELECT body FROM dead_letters"))).scalars()
        return bytes(body)


def execute(url: str, statement: str) -> None:
    """Execute a statement on a database of either kind, and commit."""

    async def run() -> None:
        database = Database(make_url(url))
        try:
            async with database.write() as connection:
                await connection.execute(text(statement))
        finally:
            await database.close()

    in_a_thread(run())
