"""An installation that began on SQLite moves to PostgreSQL with all that it has."""

import json
from typing import Any
from uuid import uuid4

from tests.support.brokering import report
from tests.support.command import Deviceops
from tests.support.databases import NewDatabase
from tests.support.documents import block, run

PAGE = "deploy/from-sqlite-to-postgresql.md"


def everything(deviceops: Deviceops) -> list[Any]:
    """All that people can see."""
    operations = deviceops.document("status")
    pages = [deviceops.document("devices", operation["id"], "--limit", "500") for operation in operations]
    some = [
        deviceops.document("device", operation["id"], page["results"][0]["device_id"])
        for operation, page in zip(operations, pages, strict=True)
        if page["results"]
    ]
    letters = deviceops.document("dead-letters", "list", "--status", "all", "--limit", "1000")
    lines = deviceops.out("dead-letters", "export", "--status", "all").splitlines()
    exported = [json.loads(line) for line in lines]
    return [operations, pages, some, letters, exported]


def test_all_of_it_is_copied_and_the_work_goes_on(
    deviceops_on_sqlite: Deviceops, new_empty_postgresql_database: str
) -> None:
    old = deviceops_on_sqlite
    fleet = (
        "--operations",
        "3",
        "--devices",
        "40",
        "--duplicates",
        "0.1",
        "--conflicts",
        "0.1",
        "--malformed",
        "0.02",
    )
    lines = old.out("simulate", *fleet, "--early", "0.1")
    waiting = report("SUCCESS")
    old.out("ingest", "-", lines=lines + json.dumps(waiting))
    before = everything(old)
    file = old.settings["database_url"].replace("+aiosqlite", "")
    new = old.with_settings(database_url=new_empty_postgresql_database)

    said = run(block(PAGE, "copy").replace("sqlite:////var/lib/deviceops/deviceops.db", file), new)

    assert "all counters agree" in said
    assert everything(new) == before
    assert everything(old) == before, "nor was anything taken away"
    assert "ready" in run(block(PAGE, "see"), new.with_settings(amqp_url="amqp://127.0.0.1:1/"))
    again = new.document("ingest", "-", lines=lines)
    assert again["received"] == again["duplicate"] + again["announced"], "what came before is known again"
    taken_up = new.document("ingest", "-", lines=json.dumps({**waiting, "state": "CREATED"}))
    assert taken_up["released"] == 1
    new.out("ingest", "-", lines="malformed\n")  # with numbers that go on


def test_nothing_is_copied_into_a_database_that_has_something(
    deviceops_on_sqlite: Deviceops, new_postgresql_database: NewDatabase
) -> None:
    new = deviceops_on_sqlite.with_settings(database_url=new_postgresql_database())
    new.out("ingest", "-", lines=json.dumps(report()))
    file = deviceops_on_sqlite.settings["database_url"].replace("+aiosqlite", "")

    refused = new("migrate", "--from", file)

    assert refused.returncode == 1
    assert "already, and nothing was copied" in refused.stderr
    assert len(new.document("status")) == 1


def test_what_is_no_sqlite_file_is_not_copied(
    deviceops_on_sqlite: Deviceops, new_postgresql_database: NewDatabase
) -> None:
    new = deviceops_on_sqlite.with_settings(database_url=new_postgresql_database())
    for url, code in (("sqlite:///nowhere.db", 1), (new.settings["database_url"], 2), (str(uuid4()), 2)):
        refused = new("migrate", "--from", url)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (code, 1), refused.stderr
    assert not (deviceops_on_sqlite.directory / "nowhere.db").exists()


def test_a_file_is_not_copied_into_another_one(deviceops_on_sqlite: Deviceops) -> None:
    file = deviceops_on_sqlite.settings["database_url"].replace("+aiosqlite", "")
    elsewhere = deviceops_on_sqlite.with_settings(database_url="sqlite:///new.db")

    refused = elsewhere("migrate", "--from", file)

    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "names no such database" in refused.stderr
    assert not (deviceops_on_sqlite.directory / "new.db").exists()
