"""What the command line needs: a database, a schema, settings; and how it says what is wrong."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.databases import NewDatabase, execute

SOME_ID = "00000000-0000-4000-8000-000000000000"


READING = [
    ("status",),
    ("devices", SOME_ID),
    ("device", SOME_ID, SOME_ID),
    ("dead-letters", "list"),
    ("dead-letters", "show", "1"),
    ("dead-letters", "export"),
    ("dead-letters", "replay", "--all", "--dry-run"),
    ("dead-letters", "discard", "--all", "--because", "x"),
    ("dead-letters", "prune", "--older-than", "1d"),
    ("recount",),
    ("prune",),
    ("check",),
]
"""Everything but `run`, `ingest`, `serve`, `dead-letters import` and `migrate`."""


@pytest.mark.parametrize("command", READING, ids=" ".join)
@pytest.mark.parametrize("exists", [False, True], ids=["none", "empty"])
def test_what_does_not_take_reports_makes_no_database(
    tmp_path: Path, command: tuple[str, ...], exists: bool
) -> None:
    file = tmp_path / "deviceops.db"
    if exists:
        file.touch()
    done = Deviceops(tmp_path, {"amqp_url": "amqp://127.0.0.1:1/"})(*command, lines="")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(
        f"deviceops: database {file}, the default, as DEVICEOPS_DATABASE_URL is not set, has nothing in it yet: "
        "`deviceops migrate` makes it, as `run`, `ingest`, `serve` and `dead-letters import` do"
    )
    assert [path.name for path in tmp_path.iterdir()] == (["deviceops.db"] if exists else [])
    assert not exists or file.stat().st_size == 0


def test_a_fresh_sqlite_file_is_set_up_by_what_takes_reports_which_says_so(tmp_path: Path) -> None:
    deviceops = Deviceops(tmp_path)

    def used(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
        assert done.returncode == 0, done.stderr
        line: dict[str, object] = json.loads(done.stderr.splitlines()[0])
        assert line["event"] == "using the database"
        return line

    first = used(deviceops("ingest", "-", lines=""))
    assert first["file"] == str(tmp_path / "deviceops.db")
    assert (first["is_default"], first["is_new"]) == (True, True)
    again = used(deviceops("ingest", "-", lines=""))
    assert (again["is_default"], again["is_new"]) == (True, False)
    chosen = used(deviceops.with_settings(database_url="sqlite:///other.db")("ingest", "-", lines=""))
    assert (chosen["is_default"], chosen["is_new"]) == (False, True)
    assert deviceops.document("status") == []
    assert not deviceops("ingest", "no-such-file").stderr.count("using"), "what cannot be read needs no database"


def test_the_log_names_the_database_without_its_password(
    new_postgresql_database: NewDatabase, tmp_path: Path
) -> None:
    url = make_url(new_postgresql_database()).set(password=SECRET).render_as_string(hide_password=False)
    done = Deviceops(tmp_path, {"database_url": url})("ingest", "-", lines="")
    [line] = [json.loads(line) for line in done.stderr.splitlines()]
    shown = make_url(url).set(drivername="postgresql").render_as_string(hide_password=True)
    assert line["database"] == shown
    checked = Deviceops(tmp_path, {"database_url": url})("check")
    assert f"database {shown}: " in checked.stdout + checked.stderr
    assert "asyncpg" not in done.stderr + checked.stdout + checked.stderr
    assert SECRET not in done.stderr
    assert (line["is_default"], line["is_new"]) == (False, False)


def test_a_fresh_postgresql_database_asks_for_migrate(new_empty_postgresql_database: str, tmp_path: Path) -> None:
    deviceops = Deviceops(tmp_path, {"database_url": new_empty_postgresql_database})

    refused = deviceops("status")

    assert refused.returncode == 1
    assert "has no deviceops schema: run `deviceops migrate`" in refused.stderr
    deviceops.out("migrate")
    assert deviceops.document("status") == []
    deviceops.out("migrate")


def test_a_schema_of_another_version_is_refused_in_one_line(deviceops: Deviceops) -> None:
    execute(deviceops.settings["database_url"], "UPDATE alembic_version SET version_num = '9999'")
    for command in ("status", "migrate"):
        refused = deviceops(command)
        assert refused.returncode == 1
        assert "schema 9999, newer than this deviceops knows" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


SECRET = "s3cr3t"  # noqa: S105  # planted, to see that nothing prints it


WRONG = {
    "no broker": (
        1,
        ["run", "--until-idle", "0.5"],
        {"amqp_url": f"amqp://guest:{SECRET}@127.0.0.1:1/", "log_level": "ERROR"},
    ),
    "no broker to publish to": (1, ["publish", "-"], {"amqp_url": f"amqp://guest:{SECRET}@127.0.0.1:1/"}),
    "no broker's address": (2, ["status"], {"amqp_url": f"amqp://gu est:{SECRET}@["}),
    "no database": (1, ["status"], {"database_url": f"postgresql://root:{SECRET}@127.0.0.1:1/test"}),
    "another kind of database": (2, ["status"], {"database_url": f"mysql://root:{SECRET}@127.0.0.1/test"}),
    "no database's address": (2, ["status"], {"database_url": SECRET}),
    "a database in memory": (2, ["status"], {"database_url": "sqlite://"}),
    "a directory as database": (1, ["status"], {"database_url": "sqlite:////tmp"}),
    "a database in no directory": (1, ["status"], {"database_url": "sqlite:///no/where/x.db"}),
    "a database's parameter that no driver knows": (2, ["status"], {"database_url": f"sqlite:///x.db?a={SECRET}"}),
    "a password among the parameters": (
        2,
        ["status"],
        {"database_url": f"postgresql://127.0.0.1/test?password={SECRET}"},
    ),
    "a limit beyond all numbers": (2, ["status", "--limit", "9" * 20], {}),
    "a batch size in words": (2, ["status"], {"batch_size": "many"}),
    "a batch wait below zero": (2, ["status"], {"batch_wait": "-1"}),
    "a prefix with spaces": (2, ["status"], {"topology_prefix": "a b"}),
    "a file that is not there": (1, ["ingest", "no-such-file"], {}),
    "a directory as file": (1, ["ingest", "."], {}),
    "an unknown operation": (1, ["status", SOME_ID], {}),
    "an unknown device": (1, ["device", SOME_ID, SOME_ID], {}),
    "devices of an unknown operation": (1, ["devices", SOME_ID], {}),
    "an unknown dead letter": (1, ["dead-letters", "show", "1"], {}),
    "no UUID": (2, ["status", "seven"], {}),
    "no state": (2, ["devices", SOME_ID, "--state", "DONE"], {}),
    "no status": (2, ["dead-letters", "list", "--status", "shut"], {}),
    "no probability": (2, ["simulate", "--early", "2"], {}),
    "no command": (2, ["fly"], {}),
    "a missing argument": (2, ["device", SOME_ID], {}),
    "the beginning of an id that is too short": (2, ["status", "abc"], {}),
    "no operation that begins so": (1, ["status", "abcd"], {}),
    "a setting as an option": (2, ["run", "--database-url", "sqlite:///x.db"], {}),
    "an unknown token": (1, ["token", "revoke", "ops"], {}),
    "queues that are removed without a question": (2, ["broker", "remove"], {}),
    "neither an id nor a message id": (2, ["dead-letters", "show"], {}),
    "--watch with --json": (2, ["status", "--watch", "--json"], {}),
    "--watch in a pipe": (2, ["status", "--watch"], {}),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_clear_line_with_the_documented_exit_code(
    deviceops_on_sqlite: Deviceops, case: str
) -> None:
    code, arguments, settings = WRONG[case]

    done = deviceops_on_sqlite.with_settings(**settings)(*arguments)

    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("deviceops: ")
    assert SECRET not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", [b"DEVICEOPS_BATCH_SIZE 5\n", b"\xff\xfe=1\n", None])
def test_a_broken_env_file_is_refused(deviceops_on_sqlite: Deviceops, content: bytes | None) -> None:
    path = deviceops_on_sqlite.directory / ".env"
    path.mkdir() if content is None else path.write_bytes(content)

    done = deviceops_on_sqlite("status")

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert ".env" in done.stderr


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_an_env_file_of_another_encoding_is_named(deviceops_on_sqlite: Deviceops, encoding: str) -> None:
    (deviceops_on_sqlite.directory / ".env").write_text("DEVICEOPS_BATCH_SIZE=7\n", encoding)

    done = deviceops_on_sqlite("status")

    expected = "deviceops: .env: is UTF-16, expected plain text in UTF-8\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_settings_are_read_from_the_env_file(deviceops_on_sqlite: Deviceops) -> None:
    (deviceops_on_sqlite.directory / ".env").write_text("DEVICEOPS_BATCH_SIZE=7\n")
    told = deviceops_on_sqlite("check").stdout
    assert re.search(r"^DEVICEOPS_BATCH_SIZE +7 +\.env$", told, re.MULTILINE)
    rows = [line.split() for line in told.splitlines() if line.startswith("DEVICEOPS_")]
    assert [row[-1] == "default" for row in rows[:3]] == [False, False, True], "what was set comes first"
    assert "messages in one transaction" not in told
    assert "messages in one transaction" in deviceops_on_sqlite("check", "--explain").stdout


def test_check_lists_every_setting_and_hides_passwords(deviceops_on_sqlite: Deviceops) -> None:
    checked = deviceops_on_sqlite.with_settings(amqp_url=f"amqp://guest:{SECRET}@127.0.0.1:1/")("check")

    assert checked.returncode == 1
    assert "amqp://guest:***@127.0.0.1:1/" in checked.stdout
    assert SECRET not in checked.stdout + checked.stderr
