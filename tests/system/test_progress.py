"""How an operation goes, as the command and HTTP show it; once on each kind of database."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.databases import in_a_thread
from tests.support.elapsing import elapse
from tests.support.sending import ANNOUNCEMENT, OPERATIONS, announcement_body, message, process, report_body
from worker.store.database import Database

OPERATION = OPERATIONS[0]
PATH = f"/v0/operations/{OPERATION}/progress/"
FLEET = [UUID(int=number) for number in range(1, 41)]
MINUTE = 60

Fill = Callable[[str], None]


async def settle(database: Database, devices: Iterable[UUID]) -> None:
    await process(database, [[message(report_body(OPERATION, device, "SUCCESS")) for device in devices]])


async def half_in_five_minutes(url: str) -> None:
    """Twenty of forty devices settle, four in each minute; the last minute is the present one."""
    database = Database(make_url(url))
    await process(database, [[message(announcement_body(OPERATION, FLEET), ANNOUNCEMENT)]])
    for minute in range(5):
        await elapse(database, MINUTE)
        await settle(database, FLEET[4 * minute : 4 * minute + 4])
    await database.close()


async def pass_time(url: str, minutes: int) -> None:
    """Let minutes pass in which nothing is reported."""
    database = Database(make_url(url))
    await elapse(database, minutes * MINUTE)
    await database.close()


def facts(deviceops: Deviceops) -> dict[str, str]:
    """The lines of `status ID` by their name."""
    lines = (line.strip().partition("  ") for line in deviceops.out("status", str(OPERATION)).splitlines())
    return {name: value.strip() for name, _, value in lines if value}


def content(api: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = api.get(PATH).raise_for_status().json()["content"]
    return found


def test_rate_and_eta_of_what_runs(deviceops_at_server: Deviceops, api: httpx.Client, url: str) -> None:
    in_a_thread(half_in_five_minutes(url))

    found, shown = content(api), facts(deviceops_at_server)

    assert (found["settled"], found["resolved"], found["expected"]) == (20, 40, 40)
    assert 3 < found["rate"] < 10
    assert sum(each["settled"] for each in found["minutes"]) == 20
    assert {each["minutes"] for each in found["minutes"]} == {1}
    eta = datetime.fromisoformat(found["eta"])
    assert timedelta(minutes=1) < eta - datetime.now(UTC) < timedelta(minutes=8)
    assert (found["stalled"], found["stalled_since"]) == (False, None)
    assert shown["rate"].endswith(" a minute")
    assert "Z, in " in shown["settled by"]
    assert "stalled" not in shown


def test_what_has_not_moved_for_long_is_stalled(
    deviceops_at_server: Deviceops, api: httpx.Client, url: str
) -> None:
    in_a_thread(half_in_five_minutes(url))
    in_a_thread(pass_time(url, 30))

    found, shown = content(api), facts(deviceops_at_server)

    assert (found["stalled"], found["rate"], found["eta"]) == (True, 0, None)
    since = datetime.fromisoformat(found["stalled_since"])
    assert timedelta(minutes=29) < datetime.now(UTC) - since < timedelta(minutes=32)
    assert shown["stalled"].startswith(f"nothing has moved since {since:%Y-%m-%d %H:%M:%SZ}, 3")
    assert not {"rate", "settled by"} & shown.keys()
    lines = deviceops_at_server.out("status").splitlines()
    [line] = [each for each in lines if each.startswith(f"{OPERATION}  for ")]
    assert line.endswith(f", since {since:%Y-%m-%d %H:%M:%SZ}")


def test_what_is_over_is_neither_stalled_nor_has_an_eta(
    deviceops_at_server: Deviceops, api: httpx.Client, url: str
) -> None:
    async def finish() -> None:
        database = Database(make_url(url))
        await settle(database, FLEET)
        await database.close()

    in_a_thread(half_in_five_minutes(url))
    in_a_thread(finish())
    in_a_thread(pass_time(url, 600))

    found = content(api)

    assert (found["settled"], found["rate"], found["eta"], found["stalled"]) == (40, 0, None, False)
    assert not {"rate", "settled by", "stalled"} & facts(deviceops_at_server).keys()
    assert "stalled" not in deviceops_at_server.out("status")


def test_the_document_of_an_operation_is_the_same_as_ever(
    deviceops_at_server: Deviceops, api: httpx.Client, url: str
) -> None:
    in_a_thread(half_in_five_minutes(url))

    document = deviceops_at_server.document("status", str(OPERATION))

    assert document == api.get(f"/v0/operations/{OPERATION}/").json()["content"]
    assert not {"rate", "eta", "stalled", "minutes"} & document.keys()


def test_an_unknown_operation_has_no_progress(api: httpx.Client) -> None:
    assert api.get(PATH).status_code == 404
