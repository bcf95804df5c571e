"""The pages of devices and of the system: for everybody, live, and readable without scripts."""

import json
from contextlib import suppress
from functools import partial
from uuid import UUID

from selenium.common.exceptions import StaleElementReferenceException

from tests.support.brokering import eventually
from tests.support.browsing.browser import Browser
from tests.support.command import Deviceops
from tests.support.sending import announcement_body, report_body

DEVICE, OPERATION = UUID(int=0xD1), UUID(int=0x0A)
LONG = "no answer from the gateway " * 40


def ingest(deviceops: Deviceops, *lines: object) -> None:
    deviceops.out("ingest", "-", lines="".join(f"{json.dumps(line)}\n" for line in lines))


def filled(deviceops: Deviceops) -> None:
    """A device in two operations, with all verdicts and dead letters."""
    timeouts = {"timeouts": {"step": 3_600}}
    ingest(
        deviceops,
        *(
            {"type": "operation.announced", "body": announcement_body(each, [DEVICE], **timeouts)}
            for each in (OPERATION, UUID(int=0x0B))
        ),
        report_body(OPERATION, DEVICE, "PROCESSING", reason=LONG, occurred_at="yesterday"),
        report_body(OPERATION, DEVICE, "DISPATCHED", report_id="x" * 200),
        report_body(OPERATION, DEVICE, "PROCESSING", code="NET-7", report_id="second"),
        report_body(UUID(int=0x0B), DEVICE, "FAILURE", reason="out of memory", service_id="s" * 255),
        report_body(UUID(int=0x0B), DEVICE, "SUCCESS"),
    )


def unfolded(browser: Browser, selector: str) -> bool:
    """Whether details are open, which are clicked if they are not; the page may just have replaced them."""
    with suppress(StaleElementReferenceException):
        if browser.find(selector).get_attribute("open") is None:
            browser.find(f"{selector} summary").click()
        return browser.find(selector).get_attribute("open") is not None
    return False


def test_the_pages_are_for_everybody(operator: Browser, deviceops_at_server: Deviceops) -> None:
    filled(deviceops_at_server)
    operator.open(f"/devices/{DEVICE}")
    operator.wait_for("In 2 operations", "out of memory", "conflict")
    eventually(partial(unfolded, operator, "section:last-of-type details"))
    operator.screenshot("device")
    operator.assert_presentable()
    operator.open(f"/operations/{OPERATION}/devices/{DEVICE}")
    operator.wait_for("Accepted reports", "cannot be read")
    operator.screenshot("device-operation")
    operator.assert_presentable()
    operator.open("/system")
    operator.wait_for("Queues", "Latest acts", "sign-in", "Answers in")
    operator.screenshot("system")
    operator.assert_presentable()
    operator.open("/system/audit")
    operator.wait_for("Who did what", "sign-in")
    operator.assert_presentable()


def test_a_report_is_on_the_page_of_its_device_and_what_was_opened_stays_open(
    watched: Browser, deviceops: Deviceops
) -> None:
    filled(deviceops)
    watched.open(f"/devices/{DEVICE}")
    watched.wait_for("In 2 operations")
    for details in ("section:first-of-type details", "section:last-of-type details"):
        eventually(partial(unfolded, watched, details))
    watched.wait_for("out of memory", "NET-7")
    ingest(deviceops, report_body(OPERATION, DEVICE, "FAILURE", reason="it broke", report_id="last"))
    watched.wait_for("it broke", "5 accepted reports")
    watched.wait_for("second", "x" * 200)  # in details that are open still


def test_devices_and_the_system_can_be_read_without_scripts(
    operator: Browser, deviceops_at_server: Deviceops
) -> None:
    filled(deviceops_at_server)
    with operator.without_javascript():
        operator.open(f"/devices/{DEVICE}")
        operator.wait_for("In 2 operations", "out of memory")
        operator.open("/system")
        operator.wait_for("Dead letters", "Versions")
