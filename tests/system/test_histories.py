"""What documents show of histories, and the pages that have the rest, over HTTP; once on each kind of database."""

from datetime import datetime, timedelta

import httpx
import pytest
from sqlalchemy import insert, make_url

from tests.support.command import Deviceops
from tests.support.databases import in_a_thread
from tests.support.sending import (
    DEVICES,
    NOW,
    OPERATIONS,
    message,
    process,
    report_body,
)
from worker.model.identity import device_operation_id
from worker.model.messages import Message
from worker.store.database import Database
from worker.store.tables import activity, operation_activity

OPERATION, DEVICE = OPERATIONS[0], DEVICES[0]
ID = device_operation_id(OPERATION, DEVICE)
PATH = f"/v0/operations/{OPERATION}/"
HOUR = timedelta(hours=1)


def report(state: str, at: datetime, **more: object) -> Message:
    return message(report_body(OPERATION, DEVICE, state, occurred_at=at.isoformat(), **more))


async def fill(url: str, number: int) -> None:
    """Give the device operation and the operation histories of a number of entries each."""
    database = Database(make_url(url))
    await process(database, [[report("CREATED", NOW), report("SUCCESS", NOW)]])
    reports = [
        {"device_operation_id": ID, "report_id": f"{each}", "state": 50, "verdict": "repeated", "service_id": "a"}
        | {"created_at": NOW + each * HOUR, "reason": "r" * 100}
        for each in range(1, number - 1)
    ]
    states = [
        {
            "operation_id": OPERATION,
            "state": ["DISPATCHING", "COMPLETED"][each % 2],
            "created_at": NOW + each * HOUR,
        }
        for each in range(1, number)
    ]
    async with database.write() as connection:
        await connection.execute(insert(activity), reports)
        await connection.execute(insert(operation_activity), states)
    await database.close()


def test_an_operation_shows_its_latest_states_and_a_page_has_every_one(
    deviceops_at_server: Deviceops, api: httpx.Client
) -> None:
    in_a_thread(fill(deviceops_at_server.settings["database_url"], 1_000))

    document = api.get(PATH).json()["content"]
    in_list = api.get("/v0/operations/").json()["results"][0]
    pages = [api.get(f"{PATH}activity/?limit=500").json()["content"]]
    pages.append(api.get(pages[0]["next"]).json()["content"])

    every = [entry for page in pages for entry in page["results"]]
    assert [len(page["results"]) for page in pages] == [500, pages[0]["count"] - 500]
    assert pages[0]["count"] >= 1_000
    assert document["operation_activity"] == in_list["operation_activity"] == every[-100:]
    assert deviceops_at_server.document("status", str(OPERATION)) == document
    assert "history" in deviceops_at_server.out("status", str(OPERATION))


def test_a_device_operation_shows_its_states_and_a_page_has_every_report(
    deviceops_at_server: Deviceops, api: httpx.Client
) -> None:
    in_a_thread(fill(deviceops_at_server.settings["database_url"], 1_000))
    path = f"{PATH}devices/{DEVICE}/"

    document = api.get(path).json()["content"]
    page = api.get(f"{path}reports/?limit=3&offset=1").json()["content"]
    latest = api.get(f"{path}reports/?limit=1&ordering=-created_at").json()["content"]
    shown = deviceops_at_server.out("device", str(OPERATION), str(DEVICE), "--limit", "3")

    assert [entry["device_operation_state"] for entry in document["device_operation_activity"]] == [
        "CREATED",
        "SUCCESS",
    ]
    assert page["count"] == 1_000
    assert latest["results"] == api.get(f"{path}reports/?limit=1&offset=999").json()["content"]["results"]
    assert [each["verdict"] for each in page["results"]] == ["applied", "repeated", "repeated"]
    assert page["results"][1] == {
        "report_id": "1",
        "state": "SUCCESS",
        "verdict": "repeated",
        "service_id": "a",
        "reason": "r" * 100,
        "code": None,
        "created_at": "2026-01-31T09:00:00Z",
        "note": None,
    }
    assert "1 to 3 of 1,000" in shown


@pytest.mark.parametrize("path", ["activity/", f"devices/{DEVICE}/reports/"])
def test_what_is_not_known_has_no_history(api: httpx.Client, path: str) -> None:
    assert api.get(f"{PATH}{path}").status_code == 404
