"""Exports over HTTP and by `devices --format`: whole, or plainly cut off; a file is there once it is whole."""

import json
from csv import DictReader
from io import StringIO
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url

from tests.support.brokering import eventually
from tests.support.command import Deviceops
from tests.support.databases import NewDatabase, in_a_thread
from tests.support.seed import DEVICE_ID, OPERATION
from tests.support.serving import (
    DEVICE_OPERATIONS,
    DEVICES,
    NOWHERE,
    OPERATIONS,
    Server,
    announce,
    put,
    refused,
    serving,
)
from worker.api.context import MAX_EXPORTS

CSV, JSONL = {"Accept": "text/csv"}, {"Accept": "application/x-ndjson"}
MANY = 5_000
"""Device operations of 4 kB: more than the buffers between a server and its client hold."""
FILL = """
INSERT INTO device_operations (id, operation_id, device_id, state, dispatched, reason, created_at, updated_at,
    registered_at, reported_at)
SELECT gen_random_uuid(), $1, gen_random_uuid(), 60, true, repeat('reason ', 600), now(), now(), 0, 0
FROM generate_series(1, $2::integer)
"""
END_EXPORTS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
"""


@pytest.fixture
def reported(api: httpx.Client) -> httpx.Client:
    """A client of a server with ten device operations, of which two have failed."""
    announce(api, DEVICES)
    for device in DEVICES[:2]:
        put(api, "FAILURE", f"{DEVICE_OPERATIONS}{device}/", reason='=1+1, "quoted"', code="-1")
    return api


def test_all_rows_of_a_filter_come_as_csv_and_json_lines(reported: httpx.Client, server: Server) -> None:
    failed = {"state": "FAILURE"}
    page = reported.get(DEVICE_OPERATIONS, params=failed).json()["content"]
    in_csv, in_lines = (reported.get(DEVICE_OPERATIONS, params=failed, headers=each) for each in (CSV, JSONL))
    assert in_csv.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert in_lines.headers["Content-Type"] == "application/x-ndjson"
    assert in_csv.headers["Content-Disposition"] == f'attachment; filename="{OPERATION["id"]}.csv"'
    assert in_csv.headers["X-Row-Count"] == in_lines.headers["X-Row-Count"] == "2"
    documents = [json.loads(line) for line in in_lines.text.splitlines()]
    by_id = sorted(page["results"], key=lambda document: document["id"])
    assert [{name: each[name] for name in by_id[0]} for each in documents] == by_id
    assert {each["code"] for each in documents} == {"-1"}
    rows = list(DictReader(StringIO(in_csv.text, newline="")))
    assert [row["device_id"] for row in rows] == [each["device_id"] for each in documents]
    assert {(row["reason"], row["code"]) for row in rows} == {('\'=1+1, "quoted"', "'-1")}
    whole = reported.get(DEVICE_OPERATIONS, headers=JSONL)
    assert len(whole.text.splitlines()) == int(whole.headers["X-Row-Count"]) == 10
    head = reported.head(DEVICE_OPERATIONS, headers=CSV)
    assert (head.status_code, head.content, head.headers["X-Row-Count"]) == (200, b"", "10")
    with server.client() as other:  # the connection goes on
        assert other.get(DEVICE_OPERATIONS, headers=CSV).headers["X-Row-Count"] == "10"
        assert other.get(DEVICE_OPERATIONS).json()["content"]["count"] == 10


def test_operations_are_exported_too(reported: httpx.Client) -> None:
    announce(reported, [], id=NOWHERE, operation_type="REBOOT")
    for path, number in ((OPERATIONS, 2), (f"/v0/devices/{DEVICE_ID}/operations/", 1)):
        documents = reported.get(path).json()["results"]
        lines = reported.get(path, headers=JSONL)
        assert lines.headers["X-Row-Count"] == str(number)
        assert [json.loads(line) for line in lines.text.splitlines()] == sorted(
            documents, key=lambda one: one["id"]
        )
        rows = list(DictReader(StringIO(reported.get(path, headers=CSV).text, newline="")))
        assert [row["id"] for row in rows] == sorted(one["id"] for one in documents)
    typed = reported.get(OPERATIONS, params={"operation_type": "REBOOT"}, headers=JSONL)
    assert [json.loads(line)["id"] for line in typed.text.splitlines()] == [NOWHERE]


def test_what_an_export_does_not_take_or_find_is_an_error_as_ever(reported: httpx.Client) -> None:
    for name, value in (("limit", "5"), ("offset", "0"), ("ordering", "state"), ("cursor", "")):
        [fault] = refused(reported.get(DEVICE_OPERATIONS, params={name: value}, headers=CSV), 400)["faults"]
        assert fault["where"] == name
    refused(reported.get(f"{OPERATIONS}{NOWHERE}/devices/", headers=CSV), 404)
    refused(reported.get(f"/v0/devices/{NOWHERE}/operations/", headers=JSONL), 404)
    refused(reported.get(DEVICE_OPERATIONS, params={"state": "FINE"}, headers=CSV), 400)
    assert reported.get(DEVICE_OPERATIONS, headers={"Accept": "text/csv;q=0"}).json()["content"]["count"] == 10


def test_devices_are_exported_to_a_file_or_standard_output(
    reported: httpx.Client, deviceops_at_server: Deviceops
) -> None:
    deviceops, operation = deviceops_at_server, OPERATION["id"]
    for format_, headers in (("csv", CSV), ("jsonl", JSONL)):
        expected = reported.get(DEVICE_OPERATIONS, params={"state": "FAILURE"}, headers=headers)
        path = deviceops.directory / f"out.{format_}"
        path.write_text("what was there")
        path.chmod(0o600)
        done = deviceops("devices", operation, "--state", "60", "--format", format_, "--output", str(path))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "device operations exported: 2\n")
        assert path.read_bytes() == expected.content
        assert path.stat().st_mode & 0o777 == 0o600
        assert not list(deviceops.directory.glob("*.part"))
        printed = deviceops.out("devices", operation, "--state", "60", "--format", format_)
        assert printed.splitlines() == expected.text.splitlines()


@pytest.mark.parametrize(
    "words",
    [
        ("--format", "csv", "--limit", "20"),
        ("--format", "csv", "--offset", "0"),
        ("--format", "jsonl", "--json"),
        ("--output", "file"),
        ("--format", "xml"),
    ],
)
def test_options_that_contradict_each_other_are_a_usage_error(
    deviceops_on_sqlite: Deviceops, words: tuple[str, ...]
) -> None:
    done = deviceops_on_sqlite("devices", NOWHERE, *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not list(deviceops_on_sqlite.directory.glob("file*"))


def test_an_export_of_nothing_known_leaves_a_file_as_it_was(deviceops_on_sqlite: Deviceops) -> None:
    path = deviceops_on_sqlite.directory / "out.csv"
    path.write_text("what was there")
    done = deviceops_on_sqlite("devices", NOWHERE, "--format", "csv", "--output", str(path))
    assert (done.returncode, done.stderr) == (1, f"deviceops: operation {NOWHERE} is unknown\n")
    nowhere = deviceops_on_sqlite.directory / "missing" / "out.csv"
    deviceops_on_sqlite.out("ingest", "-", lines=deviceops_on_sqlite.out("simulate", "--devices", "20"))
    [operation] = deviceops_on_sqlite.document("status")
    done = deviceops_on_sqlite("devices", operation["id"], "--format", "csv", "--output", str(nowhere))
    assert (done.returncode, done.stderr) == (1, f"deviceops: {nowhere}: No such file or directory\n")
    assert path.read_text() == "what was there"
    head = Deviceops(
        deviceops_on_sqlite.directory, deviceops_on_sqlite.settings, wrapper=("sh", "-c", '"$@" | head -1', "sh")
    )
    done = head("devices", operation["id"], "--format", "csv")
    assert done.stdout.startswith("device_id,state,")
    assert "Traceback" not in done.stderr


class Large:
    """An operation whose export no buffer holds, on PostgreSQL."""

    def __init__(self, database_url: str, directory: Path) -> None:
        self._url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self.deviceops = Deviceops(directory, {"database_url": database_url})
        announced = {"type": "operation.announced", "body": {"id": OPERATION["id"], "operation_type": "CONVERGE"}}
        self.deviceops.out("ingest", "-", lines=json.dumps(announced))
        in_a_thread(self._execute(FILL, OPERATION["id"], MANY))
        self.deviceops.out("recount", "--fix")

    def end_exports(self) -> None:
        """End the sessions that have a transaction."""
        assert in_a_thread(self._execute(END_EXPORTS)) == 1

    async def _execute(self, statement: str, *arguments: object) -> object:
        connection = await asyncpg.connect(self._url)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()


@pytest.fixture
def large(new_postgresql_database: NewDatabase, tmp_path: Path) -> Large:
    """An operation whose export no buffer holds."""
    return Large(new_postgresql_database(), tmp_path)


def test_an_export_whose_database_fails_is_an_error_for_its_client(large: Large) -> None:
    with serving(large.deviceops) as server:
        with server.client() as api:
            with api.stream("GET", DEVICE_OPERATIONS, headers=JSONL) as response:
                assert response.headers["X-Row-Count"] == str(MANY)
                received = response.iter_bytes()
                next(received)
                large.end_exports()
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    sum(map(len, received))
            whole = api.get(DEVICE_OPERATIONS, headers=JSONL)
        assert len(whole.text.splitlines()) == MANY
        server.stop()
    assert not [line for line in server.log if line["level"] in ("error", "critical")]


def test_a_client_that_leaves_ends_its_export(large: Large) -> None:
    with serving(large.deviceops) as server, server.client() as api:

        def begins() -> bool:
            with api.stream("GET", DEVICE_OPERATIONS, headers=CSV) as response:
                if response.status_code == httpx.codes.OK:
                    next(response.iter_bytes())
                    return True
                assert response.status_code == httpx.codes.SERVICE_UNAVAILABLE
                return False

        for _ in range(MAX_EXPORTS + 1):
            eventually(begins)
        server.stop()
    assert not [line for line in server.log if line["level"] in ("error", "critical")]


def test_a_command_whose_database_fails_says_so_in_one_line(large: Large) -> None:
    command = ("devices", OPERATION["id"], "--format", "jsonl")
    with large.deviceops.running(*command, pipesize=4_096) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        large.end_exports()
        read = process.stdout.read().splitlines()
        assert process.wait(60) == 1
        assert len(read) < MANY - 1
        error = process.stderr.read()
    assert error.startswith("deviceops: database ")
    assert error.count("\n") == 1
