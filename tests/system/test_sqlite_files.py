"""The HTTP API while its SQLite file is another one."""

from pathlib import Path
from uuid import uuid4

from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.databases import NewDatabase
from tests.support.serving import OPERATIONS, refused, serving


def removed(file: Path) -> None:
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()


def test_the_api_answers_503_until_the_file_is_back(
    deviceops_on_sqlite: Deviceops, new_sqlite_database: NewDatabase
) -> None:
    file = Path(make_url(deviceops_on_sqlite.settings["database_url"]).database or "")
    with serving(deviceops_on_sqlite) as server, server.client() as client:
        assert client.get(OPERATIONS).is_success
        removed(file)
        refused(client.get(OPERATIONS), 503)
        operation = {"id": str(uuid4()), "operation_type": "CONVERGE"}
        refused(client.post(OPERATIONS, json=operation), 503)
        assert not file.exists()
        Path(make_url(new_sqlite_database()).database or "").rename(file)
        assert client.post(OPERATIONS, json=operation).is_success
        assert client.get(OPERATIONS).json()["count"] == 1
    assert {line["level"] for line in server.log} == {"info", "warning"}
