"""An operation of 60 devices for the tests of its page, and how these read what a page shows."""

import re
from collections.abc import Mapping, Sequence
from html import unescape
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import make_url

from tests.support import paging
from tests.support.command import Deviceops
from tests.support.databases import in_a_thread
from tests.support.sending import announcement_body, encoded, report_body
from worker.store import audit
from worker.store.database import Database

OPERATION = UUID(int=0xABCDEF << 100)
ADDRESS, API = f"/operations/{OPERATION}", f"/v0/operations/{OPERATION}/"
DEVICES = [UUID(int=number + (1 << 90)) for number in range(60)]
ANNOUNCED = 70
TIMING = {
    "timeouts": {"pending": 7_200, "step": 86_400},
    "deadline": "2100-01-01T00:00:00Z",
    "abort": {"failed_percent": 60, "min_settled": 20, "action": "notify"},
}
WRITES = ("announce", "cancel", "retry")


def roll_out(deviceops: Deviceops) -> None:
    """An operation of 60 devices: 20 succeeded, 16 failed for several reasons, 2 timed out, 22 are open."""
    reports: list[object] = [announced(announcement_body(OPERATION, DEVICES, device_count=ANNOUNCED, **TIMING))]
    for number, device in enumerate(DEVICES):
        if number < 20:
            reports += [report(device, "PROCESSING"), report(device, "SUCCESS", service_id="ota-service")]
        elif number < 27:
            reports += [report(device, "PROCESSING"), report(device, "FAILURE", code="DISK_FULL", reason="full")]
        elif number < 32:
            reports.append(report(device, "FAILURE", reason=f"no answer in {number} s", service_id="ota-service"))
        elif number < 36:
            reports.append(report(device, "FAILURE"))
        elif number < 38:
            reports.append(report(device, "TIMEOUT", code="step", reason="silent"))
        elif number < 50:
            reports.append(report(device, "DISPATCHED"))
    reports += [report(UUID(int=number), "SUCCESS") for number in (1, 2, 3)]
    deviceops.out("ingest", "-", lines=lines_of(reports))


def announced(body: object) -> object:
    return {"type": "operation.announced", "body": body}


def report(device: UUID, state: str, **more: object) -> object:
    return report_body(OPERATION, device, state, **more)


def lines_of(bodies: Sequence[object]) -> str:
    return "\n".join(encoded(each).decode() for each in bodies)


def text_of(page: httpx.Response) -> str:
    """The text that a page shows, without spaces before marks."""
    return re.sub(r" ([,.%…:])", r"\1", paging.text_of(page))


def links(page: httpx.Response, pattern: str = ".*") -> Mapping[str, str]:
    """The addresses of links by what they show."""
    found = re.findall(r'<a\b[^>]*\bhref="([^"]*)"[^>]*>(.*?)</a>', page.text, flags=re.DOTALL)
    named = {" ".join(re.sub("<[^>]*>", " ", text).split()): unescape(href) for href, text in found}
    return {name: href for name, href in named.items() if re.fullmatch(pattern, href)}


def devices_on(page: httpx.Response) -> list[str]:
    """The devices of the rows, in order."""
    return re.findall(r'id="device-([0-9a-f-]{36})"', page.text)


def fields_of(page: httpx.Response, action: str) -> dict[str, list[str]]:
    """What the hidden fields of a form have."""
    form = page.text.split(f'<form method="post" action="{action}"', 1)[1].split("</form>", 1)[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form):
        found.setdefault(name, []).append(unescape(value))
    return found


def content(api: httpx.Client, path: str, /, **parameters: str) -> Any:
    response = api.get(path, params=parameters or None)  # without any, those of the path stay
    assert response.is_success, response.text
    return response.json()["content"]


def acts(deviceops: Deviceops, target: object = OPERATION) -> Sequence[audit.Entry]:
    """What was done to an operation, the latest first."""

    async def read() -> Sequence[audit.Entry]:
        database = Database(make_url(deviceops.settings["database_url"]))
        try:
            async with database.read() as connection:
                return await audit.latest(connection, 100, target=str(target))
        finally:
            await database.close()

    return in_a_thread(read())
