"""Statements that read a batch's rows as one relation: one statement with few parameters for any number of rows.

PostgreSQL takes an array for each column (`unnest`), SQLite one JSON document (`json_each`). Many-row VALUES
would be a new statement for each number of rows, with thousands of parameters.
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

CHANGES_CHANNEL = "deviceops_changes"
"""NOTIFY channel of commits that tell changes; without a payload, so that a transaction notifies once."""
_CLAUSES = {
    "{for_update}": ("FOR UPDATE OF o", ""),
    "{for_update_skip_locked}": ("FOR UPDATE OF o SKIP LOCKED", ""),
    # Milliseconds since 1970; of SQLite, whose processes share the machine, that of the machine.
    "{clock}": (
        "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)",
        "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    ),
    # LATERAL with OFFSET 0: planned while the table is almost empty, a plain join would scan it for every row.
    "{their_dead_letters}": (
        "CROSS JOIN LATERAL (SELECT * FROM dead_letters o WHERE o.device_operation_id = rows.device_operation_id"
        " OFFSET 0) d",
        "JOIN dead_letters d ON d.device_operation_id = rows.device_operation_id",
    ),
    "{its_report}": (
        "CROSS JOIN LATERAL (SELECT o.state FROM device_operation_activity o"
        " WHERE o.device_operation_id = asked.device_operation_id AND o.report_id = asked.report_id OFFSET 0) a",
        "JOIN device_operation_activity a ON a.device_operation_id = asked.device_operation_id"
        " AND a.report_id = asked.report_id",
    ),
    "{its_dead_letters}": (
        "CROSS JOIN LATERAL (SELECT o.id, o.status FROM dead_letters o"
        " WHERE o.device_operation_id = asked.device_operation_id AND o.report_id = asked.report_id OFFSET 0) d",
        "JOIN dead_letters d ON d.device_operation_id = asked.device_operation_id"
        " AND d.report_id = asked.report_id",
    ),
}
"""Placeholders of statements: their SQL for PostgreSQL and for SQLite."""

WORTH_COPYING = 50
"""Number of rows from which COPY is faster than INSERT: each COPY is parsed as a statement of its own."""

Parameter = datetime | UUID | str | int | None
"""A value that is the same for every row."""

Columns = Mapping[str, TypeEngine[Any] | type[TypeEngine[Any]] | type[TypeDecorator[Any]]]

_PLAIN = {Uuid, Text, SmallInteger, Integer, BigInteger, Boolean}
"""Types that asyncpg returns without conversion by SQLAlchemy."""
POSTGRESQL = URL.create("postgresql+asyncpg").get_dialect()()
"""SQLAlchemy's dialect."""


def clock_of(dialect: str) -> str:
    """SQL of the database's clock, in milliseconds since 1970."""
    return _CLAUSES["{clock}"][dialect != "postgresql"]


class Statement:
    """SQL that reads a batch's rows from `{rows}`, a relation with the named columns and PostgreSQL types.

    Placeholders: `{for_update}` and `{for_update_skip_locked}` lock the rows that are read (PostgreSQL), `{clock}`
    is the database's clock in milliseconds since 1970, `{their_dead_letters}` joins, as `d`, the dead letters of
    the rows' device operations, `{its_report}` and `{its_dead_letters}` join, as `a` and `d`, those with the id of
    a report that is `asked`.
    `row_type` is the named tuple of a row, if it has one; its fields are the columns.
    `copied_into` is the table of a statement that only inserts its rows: many rows are then inserted by COPY on
    PostgreSQL, by `executemany` on SQLite, both in three quarters of the time.
    """

    def __init__(
        self,
        sql: str,
        rows: Mapping[str, str],
        returns: Columns | None = None,
        *,
        copied_into: str | None = None,
        row_type: type[tuple[Any, ...]] | None = None,
    ) -> None:
        assert row_type is None or row_type._fields == tuple(rows)  # type: ignore[attr-defined]
        self._sql = sql
        self.rows = rows
        self.returns = returns or {}
        self._table = copied_into
        # Results need no conversion by SQLAlchemy.
        self.returns_plainly = _PLAIN.issuperset(self.returns.values())

    async def run(
        self, connection: AsyncConnection, rows: Sequence[tuple[Any, ...]], **parameters: Parameter
    ) -> Sequence[Any]:
        """Execute once for all `rows`, and return the result; does nothing without rows.

        `parameters` are values that are the same for every row.
        """
        if not rows:
            return ()
        if self._table is not None and len(rows) >= WORTH_COPYING:
            await self._copy(connection, self._table, rows)
            return ()
        return await _execute(connection, [(self, rows)], parameters)

    def sql(self, dialect: str, key: str) -> str:
        """The SQL for a dialect; its rows are the parameters that `bound` returns for the same key."""
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
        return {f"{key}_{name}": _array(column) for name, column in zip(self.rows, columns, strict=True)}

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


async def run_together(connection: AsyncConnection, *runs: Run, **parameters: Parameter) -> Sequence[Any]:
    """Run statements that do not depend on each other; returns the result of the last one.

    On PostgreSQL small ones are combined into one statement, since the round trip dominates their cost.
    """
    is_small = all(len(rows) < WORTH_COPYING for _, rows in runs)
    if is_small and connection.dialect.name == "postgresql":
        return await _execute(connection, [(statement, rows) for statement, rows in runs if rows], parameters)
    found: Sequence[Any] = ()
    for statement, rows in runs:
        found = await statement.run(connection, rows, **parameters)
    return found


async def _execute(
    connection: AsyncConnection, runs: Sequence[Run], parameters: Mapping[str, Parameter]
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
    """Whether the transaction has begun: SQLAlchemy begins it with its first statement."""
    return bool(_driver_of(connection).is_in_transaction())


@asynccontextmanager
async def _on_driver(connection: AsyncConnection) -> AsyncIterator["asyncpg.Connection"]:
    """asyncpg's connection, for statements in a transaction that has begun.

    Without SQLAlchemy a statement takes a third of the processor time, a fifth of the total for a batch of five
    reports: a batch has up to fifteen statements.
    """
    try:
        yield _driver_of(connection)
    except asyncio.CancelledError as error:
        await connection.invalidate(error)  # like SQLAlchemy: the state of the session is unknown
        raise


def _driver_of(connection: AsyncConnection) -> "asyncpg.Connection":
    assert connection.sync_connection is not None
    return connection.sync_connection.connection.driver_connection


@cache
def _numbered(*statements: "Statement") -> tuple[str, Sequence[str]]:
    """The SQL with numbered parameters, and the names in that order."""
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


def _array(column: tuple[Any, ...]) -> list[Any]:
    """A column as an array; empty if it has nothing but NULL, which `unnest` adds to shorter arrays.

    The driver takes 0.2 µs for each element.
    """
    return [] if column[0] is None and column.count(None) == len(column) else list(column)


def _plain(kind: str, column: Iterable[Any]) -> Iterable[Any]:
    """Values of a column in the form that SQLite's driver accepts."""
    if kind in ("uuid", "timestamptz"):
        return map(_encode, column)
    return map(int, column) if kind == "smallint" else column


def _bound(value: Parameter) -> object:
    """A parameter in the form that SQLite's driver accepts."""
    return _encode(value) if isinstance(value, datetime | UUID) else value


def _encode(value: object) -> object:
    """Convert a value to the form in which SQLAlchemy stores it in SQLite."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return value.isoformat(" ", "microseconds")[:26]
    raise TypeError(f"no SQLite form for {type(value).__name__}")


def with_json(value: object) -> object:
    """A value for a column of JSON: objects become text."""
    return json.dumps(value) if isinstance(value, dict) else value
