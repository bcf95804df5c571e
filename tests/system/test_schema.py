"""The schema and its versions: the migrations make what the code describes, and take the data along."""

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Connection, inspect, make_url, text

from tests.support.command import Deviceops
from tests.support.databases import in_a_thread
from tests.support.elapsing import elapse_at
from tests.support.old_schema import DEVICES, OPERATION, line, make, make_version_1
from worker.model.identity import device_operation_id
from worker.store import schema
from worker.store.database import Database

pytestmark = pytest.mark.each_database(full=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Deviceops:
    """The command on a database without any tables; once on each kind."""
    url = (
        f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue("new_empty_postgresql_database")
    )
    return Deviceops(tmp_path, {"database_url": url})


@pytest.fixture
def version_1(empty: Deviceops) -> Deviceops:
    """The command on a database of version 0001; once on each kind."""
    make_version_1(empty.settings["database_url"])
    return empty


def test_an_older_schema_is_refused_until_migrate_has_brought_it_up_with_its_data(version_1: Deviceops) -> None:
    refused = version_1("status")

    assert refused.returncode == 1
    assert f"has schema 0001, this deviceops needs {schema.HEAD}: run `deviceops migrate`" in refused.stderr
    version_1.out("migrate")
    assert version_1.document("recount") == {"operations": 1, "drifted": []}
    page = version_1.document("devices", OPERATION, "--state", "SUCCESS")
    assert (page["count"], [found["state"] for found in page["results"]]) == (1, ["SUCCESS"])
    letters = version_1.document("dead-letters", "list")
    assert sorted(letter["detail"] for letter in letters) == ["it is parked", "it was not JSON"]
    malformed = ("--reason", "malformed")
    assert version_1.document("dead-letters", "replay", *malformed)["still_dead"] == {"malformed": 1}


def test_the_reports_of_an_older_schema_are_known_again(version_1: Deviceops) -> None:
    version_1.out("migrate")
    known = [line("one", "CREATED"), line("other", "SUCCESS"), line("third", "SUCCESS")]

    again = version_1.document("ingest", "-", lines="\n".join(known))
    rest = version_1.document("ingest", "-", lines=f"{line('one', 'FAILURE')}\n{line('third', 'CREATED')}")

    nothing: dict[str, object] = dict.fromkeys(again, 0) | {"dead_lettered": {}}
    assert again == nothing | {"received": 3, "duplicate": 3}
    assert rest == nothing | {"received": 2, "applied": 3, "released": 1}
    assert version_1.document("recount") == {"operations": 1, "drifted": []}
    for device, states in {"one": ["CREATED", "FAILURE"], "other": ["CREATED", "SUCCESS"]}.items():
        document = version_1.document("device", OPERATION, str(DEVICES[device]))
        assert [entry["device_operation_state"] for entry in document["device_operation_activity"]] == states


def test_version_6_takes_what_documents_show_from_the_history_that_is_there(empty: Deviceops) -> None:
    """The earliest time of each state to the microsecond; of what was pruned, what the row itself says."""
    registered, updated = datetime(2026, 1, 31, 8, tzinfo=UTC), datetime(2026, 1, 31, 9, 0, 0, 999_999, tzinfo=UTC)
    early = datetime.min.replace(tzinfo=UTC) + timedelta(milliseconds=1)
    late = datetime.max.replace(tzinfo=UTC) - timedelta(milliseconds=1)
    operation = UUID(OPERATION)
    ids = {f"of_{name}": device_operation_id(operation, device) for name, device in DEVICES.items()}
    times = {"at": registered, "updated": updated, "early": early, "late": late}
    rows = ", ".join(f"(:of_{name}, :operation, :{name}, 60, true, '', :at, :updated)" for name in DEVICES)
    make(
        empty.settings["database_url"],
        "0005",
        [
            "INSERT INTO operations (id, state, created_at, updated_at) VALUES (:operation, '', :at, :at)",
            f"""
            INSERT INTO device_operations
                (id, operation_id, device_id, state, dispatched, reason, created_at, updated_at)
            VALUES {rows}
            """,  # noqa: S608  # our constants
            """
            INSERT INTO device_operation_activity
                (device_operation_id, report_id, state, verdict, created_at, service_id, reason)
            VALUES (:of_one, 'a', 10, 'applied', :late, '', ''), (:of_one, 'b', 10, 'repeated', :at, '', ''),
                (:of_one, 'c', 60, 'applied', :late, '', ''), (:of_one, 'd', 40, 'late', :early, '', ''),
                (:of_other, 'a', 40, 'late', :updated, '', '')
            """,
        ],
        {**DEVICES, **ids, **times, "operation": operation},
    )

    empty.out("migrate")

    for device, expected in {
        "one": [("CREATED", registered), ("PROCESSING", early), ("FAILURE", late)],
        "other": [("CREATED", registered), ("PROCESSING", updated), ("FAILURE", updated)],
        "third": [("CREATED", registered), ("FAILURE", updated)],
    }.items():
        document = empty.document("device", OPERATION, str(DEVICES[device]))
        shown = [tuple(entry.values()) for entry in document["device_operation_activity"]]
        assert [(state, datetime.fromisoformat(at)) for state, at in shown] == expected


OF_VERSION_8 = (
    """
    INSERT INTO operations (id, operation_type, state, created_at, updated_at, resolved_device_count,
        dispatched_device_count, success_device_count, in_created, in_processing, in_success)
    VALUES (:operation, 'CONVERGE', 'DISPATCHING', :at, :at, 3, 2, 1, 1, 1, 1)
    """,
    """
    INSERT INTO device_operations
        (id, operation_id, device_id, state, dispatched, reason, created_at, updated_at, reached)
    VALUES (:of_one, :operation, :one, 10, false, '', :at, :at, ''),
        (:of_other, :operation, :other, 40, true, '', :at, :at, ''),
        (:of_third, :operation, :third, 50, true, '', :at, :at, '')
    """,
)


def test_device_operations_of_version_8_are_timed_out_as_if_registered_and_dispatched_at_the_migration(
    empty: Deviceops,
) -> None:
    operation, url = UUID(OPERATION), empty.settings["database_url"]
    ids = DEVICES | {f"of_{name}": device_operation_id(operation, device) for name, device in DEVICES.items()}
    make(url, "0008", OF_VERSION_8, {**ids, "operation": operation, "at": datetime(2026, 1, 31, 8, tzinfo=UTC)})
    empty.out("migrate")
    assert empty.document("expire")["timed_out"] == 0
    assert empty.document("recount") == {"operations": 1, "drifted": []}

    body = {"id": OPERATION, "operation_type": "CONVERGE", "timeouts": {"pending": 60, "in_progress": 600}}
    empty.out("ingest", "-", lines=json.dumps({"type": "operation.announced", "body": body}))

    assert empty.document("expire")["timed_out"] == 0, "it counts from the migration"
    for seconds, kind in ((61, "pending"), (540, "in_progress")):
        elapse_at(url, seconds)
        assert empty.document("expire")["kinds"] == {kind: 1}
    states = {found["device_id"]: found["state"] for found in empty.document("devices", OPERATION)["results"]}
    assert states == dict(zip(map(str, DEVICES.values()), ("TIMEOUT", "TIMEOUT", "SUCCESS"), strict=True))
    assert empty.document("recount") == {"operations": 1, "drifted": []}


async def test_workers_of_version_8_that_were_left_running_still_register(empty: Deviceops) -> None:
    operation, url = UUID(OPERATION), empty.settings["database_url"]
    ids = DEVICES | {f"of_{name}": device_operation_id(operation, device) for name, device in DEVICES.items()}
    values = {**ids, "operation": operation, "at": datetime(2026, 1, 31, 8, tzinfo=UTC)}
    empty.out("migrate")

    make(url, "0009", OF_VERSION_8, values)

    assert empty.document("recount") == {"operations": 1, "drifted": []}


async def test_migrating_takes_no_right_to_temporary_tables(new_empty_postgresql_database: str) -> None:
    url, role = make_url(new_empty_postgresql_database), f"deviceops_test_{secrets.token_hex(8)}"
    owner = Database(url)
    async with owner.write() as connection:
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f"REVOKE TEMPORARY ON DATABASE {url.database} FROM PUBLIC",
            f"GRANT USAGE, CREATE ON SCHEMA public TO {role}",
        ):
            await connection.execute(text(statement))
    try:
        migrating = Database(url.set(username=role))
        assert await schema.migrate(migrating) == schema.HEAD
        await migrating.close()
    finally:
        async with owner.write() as connection:
            await connection.execute(text(f"DROP OWNED BY {role}"))
            await connection.execute(text(f"DROP ROLE {role}"))
        await owner.close()


def test_a_migration_that_fails_changes_nothing(version_1: Deviceops) -> None:
    url = version_1.settings["database_url"]

    def columns(connection: Connection) -> dict[str, list[str]]:
        inspector = inspect(connection)
        names = inspector.get_table_names()
        return {name: sorted(column["name"] for column in inspector.get_columns(name)) for name in names}

    async def tables(*statements: str) -> dict[str, list[str]]:
        database = Database(make_url(url))
        async with database.write() as connection:
            for statement in statements:
                await connection.execute(text(statement))
            found = await connection.run_sync(columns)
        await database.close()
        return found

    # A table that stands in the way of the last migration's end.
    before = in_a_thread(tables("CREATE TABLE device_operation_activity (id INTEGER)"))

    assert version_1("migrate").returncode == 1

    assert in_a_thread(tables()) == before
    assert "has schema 0001, this deviceops needs" in version_1("status").stderr


def test_version_12_takes_services_and_causes_from_the_reports_that_are_there(empty: Deviceops) -> None:
    at = datetime(2026, 1, 31, 8, tzinfo=UTC)
    operation = UUID(OPERATION)
    ids = {f"of_{name}": device_operation_id(operation, device) for name, device in DEVICES.items()}
    row = "true, :at, :at, 0, 0, '10=0e2ff5e8c0a9a80'"
    make(
        empty.settings["database_url"],
        "0011",
        [
            """
            INSERT INTO operations (id, state, created_at, updated_at, resolved_device_count,
                dispatched_device_count, failed_device_count, success_device_count, in_failure, in_timeout,
                in_success)
            VALUES (:operation, 'FAILED', :at, :at, 3, 3, 2, 1, 1, 1, 1)
            """,
            f"""
            INSERT INTO device_operations (id, operation_id, device_id, state, reason, code, dispatched,
                created_at, updated_at, registered_at, reported_at, reached)
            VALUES (:of_one, :operation, :one, 60, 'disk 7 full', NULL, {row}),
                (:of_other, :operation, :other, 80, 'silent', 'step', {row}),
                (:of_third, :operation, :third, 50, '', NULL, {row})
            """,  # noqa: S608  # our constants
            """
            INSERT INTO device_operation_activity
                (device_operation_id, report_id, state, verdict, created_at, service_id, reason)
            VALUES (:of_one, 'a', 10, 'applied', :at, 'early', ''),
                (:of_one, 'b', 60, 'applied', :at, 'drift', ''),
                (:of_one, 'c', 60, 'repeated', :at, 'another', ''),
                (:of_third, 'a', 50, 'applied', :at, 'pull', '')
            """,
        ],
        {**DEVICES, **ids, "at": at, "operation": operation},
    )

    empty.out("migrate")

    groups = {
        (each["state"], each["code"], each["reason"]): each["count"]
        for each in empty.document("reasons", OPERATION)
    }
    assert groups == {("FAILURE", None, "disk <number> full"): 1, ("TIMEOUT", "step", "silent"): 1}

    async def rows() -> list[tuple[object, ...]]:
        database = Database(make_url(empty.settings["database_url"]))
        async with database.read() as connection:
            query = "SELECT service_id, cause IS NOT NULL FROM device_operations ORDER BY state"
            found = [tuple(row) for row in await connection.execute(text(query))]
        await database.close()
        return found

    assert in_a_thread(rows()) == [("pull", False), ("drift", True), (None, True)]
