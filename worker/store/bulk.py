"""A batch's rows as one relation in a statement: however many rows, one statement and few parameters.

PostgreSQL takes an array for each column (`unnest`), SQLite one JSON document (`json_each`). Many-row VALUES
would be a new statement for each number of rows, and thousands of parameters to encode one by one.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    Integer,
    SmallInteger,
    Text,
    TextClause,
    TypeDecorator,
    Uuid,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

if TYPE_CHECKING:
    import asyncpg

CHANNEL = "deviceops_operations"
"""Where PostgreSQL tells of an operation that changed: its id."""
_CLAUSES = {
    "{for_update}": ("FOR UPDATE OF o", ""),
    "{for_update_of_free}": ("FOR UPDATE OF o SKIP LOCKED", ""),
    "{telling}": (f"pg_notify('{CHANNEL}', CAST(operations.id AS text))", "NULL"),
    # PostgreSQL plans while hardly a dead letter is there, and would go through all of them for every row.
    "{their_dead_letters}": (
        "CROSS JOIN LATERAL (SELECT * FROM dead_letters o WHERE o.device_operation_id = rows.device_operation_id"
        " OFFSET 0) d",
        "JOIN dead_letters d ON d.device_operation_id = rows.device_operation_id",
    ),
}
"""What stands for them: for PostgreSQL, and for SQLite."""

WORTH_COPYING = 50
"""Rows from which on copying is faster: PostgreSQL has to read a statement for each COPY."""

Columns = Mapping[str, TypeEngine[Any] | type[TypeEngine[Any]] | type[TypeDecorator[Any]]]

_PLAIN = {Uuid, Text, SmallInteger, Integer, BigInteger, Boolean}
"""Types whose values PostgreSQL's driver gives as they are wanted."""
POSTGRESQL = URL.create("postgresql+asyncpg").get_dialect()()
"""How SQLAlchemy speaks to it."""


class Statement:
    """SQL that reads a batch's rows from `{rows}`, a relation with the named columns and PostgreSQL types.

    `{for_update}` becomes the clause that locks what is read, where the database locks rows at all,
    `{for_update_of_free}` the one that locks and reads only what nobody else has locked, and
    `{telling}` the value by which listeners are told of the updated operations at the commit, where they can be.
    `{their_dead_letters}` joins, as `d`, the dead letters of the rows' device operations.
    `copied_into` is the table that the statement only inserts the rows into: PostgreSQL then takes many of them
    by COPY and SQLite one by one, both in three quarters of the time.
    """

    def __init__(
        self, sql: str, rows: Mapping[str, str], returns: Columns | None = None, *, copied_into: str | None = None
    ) -> None:
        self._sql = sql
        self.rows = rows
        self.returns = returns or {}
        self._table = copied_into
        # SQLAlchemy has nothing to do with what comes back.
        self.returns_plainly = _PLAIN.issuperset(self.returns.values())

    async def run(
        self, connection: AsyncConnection, rows: Sequence[tuple[Any, ...]], **parameters: datetime | int
    ) -> Sequence[Any]:
        """Execute once for all `rows`, and give what returns; without rows there is nothing to do.

        `parameters` are values that are the same for every row.
        """
        if not rows:
            return ()
        if self._table is not None and len(rows) >= WORTH_COPYING:
            await self._copy(connection, self._table, rows)
            return ()
        return await _execute(connection, [(self, rows)], parameters)

    def sql(self, dialect: str, key: str) -> str:
        """The SQL for a kind of database; its rows are the parameters that `bound` gives for the same key."""
        if dialect == "postgresql":
            arrays = ", ".join(f"CAST(:{key}_{name} AS {kind}[])" for name, kind in self.rows.items())
            relation = f"unnest({arrays}) AS rows({', '.join(self.rows)})"
        else:
            fields = ", ".join(f"value ->> {index} AS {name}" for index, name in enumerate(self.rows))
            relation = f"(SELECT {fields} FROM json_each(:{key})) AS rows"
        sql = self._sql.replace("{rows}", relation)
        for name, (of_postgresql, of_sqlite) in _CLAUSES.items():
            sql = sql.replace(name, of_postgresql if dialect == "postgresql" else of_sqlite)
        return sql

    def bound(self, dialect: str, key: str, rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
        """The rows as parameters."""
        if dialect != "postgresql":
            return {key: json.dumps(rows, default=_encode)}
        columns = zip(*rows, strict=True)
        return {f"{key}_{name}": list(column) for name, column in zip(self.rows, columns, strict=True)}

    async def _copy(self, connection: AsyncConnection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if connection.dialect.name == "postgresql":
            async with _on_driver(connection) as driver:
                await driver.copy_records_to_table(table, records=rows, columns=list(self.rows))
            return
        columns = map(_plain, self.rows.values(), zip(*rows, strict=True))
        sql = f"INSERT INTO {table} ({', '.join(self.rows)}) VALUES ({', '.join('?' * len(self.rows))})"
        await connection.exec_driver_sql(sql, list(zip(*columns, strict=True)))


Run = tuple[Statement, Sequence[tuple[Any, ...]]]
"""A statement and its rows."""


async def run_together(connection: AsyncConnection, *runs: Run, **parameters: datetime | int) -> Sequence[Any]:
    """Run statements of which none needs to see what another one does; gives what the last one returns.

    PostgreSQL gets small ones as one statement, since most of the time that they take is the way there and back.
    """
    is_small = all(len(rows) < WORTH_COPYING for _, rows in runs)
    if is_small and connection.dialect.name == "postgresql":
        return await _execute(connection, [(statement, rows) for statement, rows in runs if rows], parameters)
    found: Sequence[Any] = ()
    for statement, rows in runs:
        found = await statement.run(connection, rows, **parameters)
    return found


async def _execute(
    connection: AsyncConnection, runs: Sequence[Run], parameters: Mapping[str, datetime | int]
) -> Sequence[Any]:
    if not runs:
        return ()
    dialect = connection.dialect.name
    bound: dict[str, Any] = dict(parameters)
    if dialect != "postgresql":
        bound = {name: _bound(value) for name, value in parameters.items()}
    for number, (statement, rows) in enumerate(runs):
        bound |= statement.bound(dialect, f"rows{number}", rows)
    statements = tuple(statement for statement, _ in runs)
    if dialect == "postgresql" and statements[-1].returns_plainly and _has_begun(connection):
        sql, names = _numbered(*statements)
        async with _on_driver(connection) as driver:
            found: Sequence[Any] = await driver.fetch(sql, *(bound[name] for name in names))
        return found
    result = await connection.execute(_compiled(dialect, *statements), bound)
    return result.all() if statements[-1].returns else ()


def _has_begun(connection: AsyncConnection) -> bool:
    """Whether a transaction has: SQLAlchemy begins it with the first statement that goes that way, and ends it."""
    return bool(_driver_of(connection).is_in_transaction())


@asynccontextmanager
async def _on_driver(connection: AsyncConnection) -> AsyncIterator["asyncpg.Connection"]:
    """PostgreSQL's driver, for statements in a transaction that has begun.

    Without SQLAlchemy a statement takes a third of the processor time, and a batch has up to fifteen of them:
    of one of five reports it is a fifth of all.
    """
    try:
        yield _driver_of(connection)
    except asyncio.CancelledError as error:
        await connection.invalidate(error)  # as SQLAlchemy does: nobody knows what the server is at
        raise


def _driver_of(connection: AsyncConnection) -> "asyncpg.Connection":
    assert connection.sync_connection is not None
    return connection.sync_connection.connection.driver_connection


@cache
def _numbered(*statements: "Statement") -> tuple[str, Sequence[str]]:
    """The SQL with numbered parameters, and their names in that order."""
    compiled = _compiled("postgresql", *statements).compile(dialect=POSTGRESQL)
    assert isinstance(compiled, SQLCompiler)
    return compiled.string, compiled.positiontup or ()


@cache
def _compiled(dialect: str, *statements: Statement) -> TextClause:
    *others, last = (statement.sql(dialect, f"rows{number}") for number, statement in enumerate(statements))
    parts = ", ".join(f"part{number} AS ({sql})" for number, sql in enumerate(others))
    clause = text(f"WITH {parts} {last}" if others else last)
    returns = statements[-1].returns
    return clause.columns(**returns) if returns else clause  # type: ignore[return-value]


def _plain(kind: str, column: Iterable[Any]) -> Iterable[Any]:
    """Values of a column as SQLite's driver takes them at once."""
    if kind in ("uuid", "timestamptz"):
        return map(_encode, column)
    return map(int, column) if kind == "smallint" else column


def _bound(value: datetime | int) -> object:
    """A parameter as SQLite's driver takes it."""
    return _encode(value) if isinstance(value, datetime) else value


def _encode(value: object) -> object:
    """Values as SQLAlchemy itself stores them in SQLite."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return value.isoformat(" ", "microseconds")[:26]
    raise TypeError(f"no SQLite form for {type(value).__name__}")
