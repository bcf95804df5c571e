"""The page of an operation: watched while it goes, and mended by clicking."""

import json
from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest

from tests.support.browsing.browser import Browser
from tests.support.command import Deviceops
from tests.support.sending import announcement_body, report_body
from tests.support.serving import Server, serving

OPERATION = UUID(int=7 << 100)
DEVICES = [UUID(int=number + (1 << 90)) for number in range(30)]
ADDRESS = f"/operations/{OPERATION}"
TIMING = {
    "timeouts": {"total": 3_600},
    "abort": {"failed_percent": 90, "min_settled": 20, "action": "notify"},
}


def filled(deviceops: Deviceops) -> None:
    """30 devices: 10 succeeded, 6 failed for two reasons, 14 are open; two reports are parked."""
    lines: list[object] = [
        {"type": "operation.announced", "body": announcement_body(OPERATION, DEVICES, device_count=40, **TIMING)}
    ]
    lines += [report_body(OPERATION, device, "SUCCESS") for device in DEVICES[:10]]
    lines += [report_body(OPERATION, device, "FAILURE", code="DISK_FULL") for device in DEVICES[10:14]]
    lines += [report_body(OPERATION, device, "FAILURE", reason="x" * 3_000) for device in DEVICES[14:16]]
    lines += [report_body(OPERATION, UUID(int=number), "SUCCESS") for number in (1, 2)]
    deviceops.out("ingest", "-", lines="".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture
def own_server(deviceops: Deviceops) -> Iterator[Server]:
    """A server of the test's own, with which pages are live. It ends after the browser that is asked for later."""
    filled(deviceops)
    with serving(deviceops) as server:
        yield server


def click(browser: Browser, selector: str) -> None:
    """Click on an element, also if it is replaced meanwhile."""

    def is_clicked() -> bool:
        browser.find(selector).click()
        return True

    browser.until(is_clicked, selector)


def test_it_is_for_everybody(operator: Browser, deviceops_at_server: Deviceops) -> None:
    filled(deviceops_at_server)

    for part, wanted in (
        ("", "24 open"),
        ("/cancel", "14 device operations are not settled"),
        ("/announce", "Device ids, one a line"),
        ("/retry", "Retry 6 device operations"),
        ("/retry?code=a%20b", "is not a code"),
    ):
        operator.open(f"{ADDRESS}{part}")
        operator.wait_for(wanted)
        operator.screenshot(f"operation{part.partition('?')[0].replace('/', '-')}")
        operator.assert_presentable()
        if "?" in part:
            operator.console.clear()  # the answer to a mistake is 400


def test_a_click_filters_and_what_is_open_stays_open_while_numbers_change(
    own_server: Server, browser: Browser
) -> None:
    browser.site = own_server.url
    browser.sign_in(own_server.token)
    browser.open(ADDRESS)
    browser.wait_for("16 of 40", "24 open")
    click(browser, "#chart-table-summary")

    with own_server.client() as api:
        body = {
            "operation_type": "CONVERGE",
            "state": "FAILURE",
            "service_id": "drift-service",
            "code": "DISK_FULL",
        }
        path = f"/v0{ADDRESS}/devices/{DEVICES[20]}/"
        assert api.put(path, json=body).status_code == httpx.codes.OK

    browser.wait_for("17 of 40", "13 created")
    assert browser.find("#chart-table").get_attribute("open")
    click(browser, "#group-1")
    browser.wait_for("5 device operations with these filters")
    assert browser.network.elsewhere(own_server.url) == []


def test_what_failed_is_retried_and_the_rest_cancelled(own_server: Server, browser: Browser) -> None:
    browser.site = own_server.url
    browser.sign_in(own_server.token)
    browser.open(ADDRESS)
    click(browser, "#retry-link")
    browser.wait_for("Retry 6 device operations")
    browser.find("#code").send_keys("X")
    browser.wait_for("Count again first")
    assert not browser.find("#retry .primary").is_enabled()
    browser.open(f"{ADDRESS}/retry")
    click(browser, "#retry .primary")
    browser.wait_for("Created: the retry of 6 device operations", f"Retry of operation {OPERATION}")
    click(browser, f'a[href="{ADDRESS}"]')
    click(browser, "#cancel-link")
    browser.find("#why").send_keys("enough")
    click(browser, "#cancel-them")
    browser.wait_for("Cancelled 14 device operations.", "retry as", "cancel: enough")
