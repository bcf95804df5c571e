"""A database that is not what a worker needs is refused, and an order that changes under text costs no id."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text

from tests.faults.outages import session
from tests.support.command import Deviceops
from tests.support.services import PrivatePostgreSQL
from worker.errors import DeviceopsError
from worker.jsonl import as_message
from worker.model.outcomes import Tally
from worker.processing.batches import process_messages
from worker.store.database import Database
from worker.store.schema import HEAD, migrate, require_current_schema

Make = Callable[..., Database]
OPERATION, DEVICE = str(uuid4()), str(uuid4())
CUSTOMER = "CREATE TABLE customer (id INT)"
VERSIONS = "CREATE TABLE alembic_version (version_num TEXT)"


@pytest.fixture
async def make(postgresql: PrivatePostgreSQL) -> AsyncIterator[Make]:
    """Makes empty PostgreSQL databases, with options of their own."""
    async with AsyncExitStack() as stack:

        def create(options: str = "") -> Database:
            name = f"of_a_kind_{uuid4().hex}"
            postgresql.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
            stack.callback(postgresql.execute, f"DROP DATABASE {name} WITH (FORCE)")
            url = make_url(postgresql.url).set(drivername="postgresql+asyncpg", database=name)
            made = Database(url, for_batches=True)
            stack.push_async_callback(made.close)
            return made

        yield create


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty(request: pytest.FixtureRequest, make: Make, tmp_path: Path) -> AsyncIterator[Database]:
    """A database without tables; once on each kind."""
    if request.param == "postgresql":
        yield make()
        return
    file = Database(make_url(f"sqlite+aiosqlite:///{tmp_path / 'of-others.db'}"))
    yield file
    await file.close()


async def sql(database: Database, *statements: str) -> object:
    """What the last of some statements gives."""
    async with database.write() as connection:
        results = [await connection.execute(text(statement)) for statement in statements]
        return results[-1].scalar() if results[-1].returns_rows else None


async def assert_refused(database: Database, words: str) -> None:
    """By whatever comes to the schema: `migrate`, and every other command."""
    look: tuple[Callable[[Database], Awaitable[object]], ...] = migrate, require_current_schema
    for come in look:
        with pytest.raises(DeviceopsError) as refusal:
            await come(database)
        assert words in str(refusal.value)


async def ingest(database: Database, *ids: str, **more: object) -> Tally:
    """Reports of one device operation."""
    report = {"operation_id": OPERATION, "device_id": DEVICE, "state": "CREATED", "service_id": "s", **more}
    return await process_messages(
        database, [as_message(json.dumps({**report, "report_id": id_}).encode()) for id_ in ids]
    )


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_an_encoding_that_cannot_keep_every_text_is_refused(make: Make, encoding: str) -> None:
    database = make(f"ENCODING '{encoding}' LOCALE 'C'")

    await assert_refused(database, f"has the encoding {encoding}")

    assert await sql(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


def test_a_worker_refuses_it_in_one_line(make: Make, tmp_path: Path, amqp_url: str) -> None:
    url = make("ENCODING 'LATIN1' LOCALE 'C'").url.render_as_string()

    done = Deviceops(tmp_path, {"database_url": url, "amqp_url": amqp_url})("run", "--until-idle", "1")

    [refusal] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert "has the encoding LATIN1" in refusal
    assert done.returncode == 1


@pytest.mark.parametrize("versions", [["0003"], [HEAD], ["0099"], ["3d0cb3f2a9c1"], ["0001", "0002"]])
async def test_another_programs_versions_are_not_taken_for_ours(empty: Database, versions: list[str]) -> None:
    inserts = [f"INSERT INTO alembic_version VALUES ('{version}')" for version in versions]  # noqa: S608
    await sql(empty, VERSIONS, CUSTOMER, *inserts)

    await assert_refused(empty, f"has alembic_version {', '.join(versions)}, ")

    await assert_refused(empty, "(it has customer)")
    assert await sql(empty, "SELECT count(*) FROM alembic_version") == len(versions)


@pytest.mark.parametrize("statements", [[CUSTOMER], [CUSTOMER, VERSIONS]])
async def test_another_programs_tables_get_none_of_ours_beside_them(
    empty: Database, statements: list[str]
) -> None:
    await sql(empty, *statements)

    await assert_refused(empty, "has tables, but no version of deviceops (it has customer)")


async def test_views_of_another_program_are_as_good_as_tables(empty: Database) -> None:
    await sql(empty, "CREATE VIEW operations AS SELECT 1 AS id")

    await assert_refused(empty, "has tables, but no version of deviceops (it has operations)")


async def test_a_table_that_was_lost_is_named(empty: Database) -> None:
    await migrate(empty)
    await sql(empty, "DROP TABLE recounts")

    await assert_refused(empty, "missing recounts (it has announcements, ")


async def test_a_schema_of_its_own_beside_other_tables_is_fine(make: Make) -> None:
    database = make()
    path = f"ALTER DATABASE {database.url.database} SET search_path = ours, public"
    await sql(database, "CREATE SCHEMA ours", CUSTOMER, path)
    await database.close()

    await migrate(database)
    await require_current_schema(database)

    assert await sql(database, "SELECT count(*) FROM ours.recounts") == 0


async def test_tables_of_an_extension_are_no_other_programs(make: Make) -> None:
    database = make()
    # No extension that is there everywhere has tables: this one is given one, as its script would.
    await sql(database, CUSTOMER, "ALTER EXTENSION plpgsql ADD TABLE customer")

    await migrate(database)


@pytest.mark.parametrize("url", ["postgresql://postgres@127.0.0.1:1", "postgres://postgres@127.0.0.1:1/"])
def test_a_url_without_a_database_is_refused(tmp_path: Path, url: str) -> None:
    done = Deviceops(tmp_path, {"database_url": url})("migrate")

    assert done.returncode == 2
    assert "DEVICEOPS_DATABASE_URL: names no database" in done.stderr


@pytest.mark.parametrize("empty", ["sqlite"], indirect=True)
async def test_an_sqlite_file_in_utf_16_keeps_every_text(empty: Database) -> None:
    async with empty.engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA encoding = 'UTF-16le'")
        await connection.exec_driver_sql("CREATE TABLE made (at)")
        await connection.exec_driver_sql("DROP TABLE made")
        await connection.commit()
    await require_current_schema(empty)
    ids = "é", "\U0001f600", "é", *map(str, range(60))

    first = await ingest(empty, *ids, service_id="日本", reason="\u2013\U0001f600")

    assert (first.document()["applied"], first.document()["repeated"], first.duplicate) == (1, 61, 1)
    assert await sql(empty, "PRAGMA encoding") == "UTF-16le"
    told = "SELECT service_id || reason FROM device_operation_activity ORDER BY report_id DESC"
    assert await sql(empty, told) == "日本\u2013\U0001f600"
    assert (await ingest(empty, *ids)).duplicate == len(ids)


async def test_ids_are_known_again_when_the_order_of_a_language_changes(
    make: Make, postgresql: PrivatePostgreSQL
) -> None:
    """As with an upgrade of libc or ICU: what is in an index of text is then in the wrong order."""
    database = make("ENCODING 'UTF8' LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")
    await migrate(database)
    ids = [f"r-{number}" for number in range(53)]
    assert (await ingest(database, *ids)).duplicate == 0
    async with session(postgresql.url) as own:
        old = int(await own.fetchval("SHOW server_version_num")) < 170_000
        locale = "daticulocale" if old else "datlocale"
        changed = f"UPDATE pg_database SET {locale} = 'en-US-u-kn-true' WHERE datname = $1"  # noqa: S608
        await own.execute(changed, database.url.database)
    await database.close()

    assert await sql(database, "SELECT 'r-9' < 'r-10'") is True
    assert (await ingest(database, *ids)).duplicate == len(ids)


async def test_no_index_depends_on_the_order_of_a_language(make: Make) -> None:
    database = make()
    await migrate(database)

    others = await sql(
        database,
        """
        SELECT string_agg(DISTINCT CAST(CAST(indexrelid AS regclass) AS text), ', ')
        FROM pg_index CROSS JOIN unnest(indcollation) AS used(id)
        WHERE used.id NOT IN (0, CAST('pg_catalog."C"' AS regcollation))
            AND indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = CAST('public' AS regnamespace))
        """,
    )

    assert others == "alembic_version_pkc"
