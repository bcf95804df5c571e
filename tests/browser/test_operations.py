"""The page of operations: for everybody, without scripts, small, and in the visitor's language."""

import json
from uuid import UUID

from selenium.webdriver.common.keys import Keys

from tests.support.browsing.browser import Browser
from tests.support.command import Deviceops
from tests.support.sending import announcement_body
from tests.support.serving import Server

FIRST_VIEW = 150_000
"""Bytes over the wire that a first visit may take, with signing in."""
ZERO, ONE, MANY = (UUID(int=number) for number in (1, 2, 3))


def ingest(deviceops: Deviceops, *lines: object) -> None:
    deviceops.out("ingest", "-", lines="".join(f"{json.dumps(line)}\n" for line in lines))


def simulated(deviceops: Deviceops, operations: int, *options: str) -> None:
    """Operations of which some devices have settled, of each colour."""
    deviceops.out(
        "ingest",
        "-",
        lines=deviceops.out("simulate", f"--operations={operations}", "--seed=3", *options),
    )


def announced(operation: UUID, devices: int, **more: object) -> dict[str, object]:
    return {"type": "operation.announced", "body": announcement_body(operation, device_count=devices, **more)}


def test_without_an_operation_it_says_so(operator: Browser) -> None:
    assert "No operations yet" in operator.text
    operator.assert_presentable()


def test_with_operations_of_all_sizes_it_is_for_everybody(
    operator: Browser, deviceops_at_server: Deviceops
) -> None:
    simulated(deviceops_at_server, 4, "--devices=60", "--silent=0.1", "--early=0.1", "--conflicts=0.02")
    timing = {"timeouts": {"total": 3_600}, "abort": {"failed_percent": 5, "min_settled": 1, "action": "notify"}}
    ingest(
        deviceops_at_server,
        announced(ZERO, 0),
        announced(ONE, 1, operation_type="A" + " long" * 50, **timing),
        announced(MANY, 1_000_000, operation_type="x" * 255),
    )

    operator.open("/")
    operator.wait_for("7 operations", "0 of 1,000,000", "0 of 1\t")
    operator.screenshot("operations")
    operator.assert_presentable()


def test_a_first_visit_is_small_and_asks_no_other_host(
    browser: Browser, server: Server, deviceops_at_server: Deviceops
) -> None:
    simulated(deviceops_at_server, 120, "--devices=3")

    browser.site = server.url
    browser.sign_in(server.token)
    browser.wait_for("120 operations")
    network = browser.network
    assert network.bytes <= FIRST_VIEW, "\n".join(map(str, network.requests))
    assert network.elsewhere(server.url) == []
    assert {request.status for request in network.requests if request.status} == {200, 303}


def test_it_is_read_and_filtered_without_javascript(operator: Browser, deviceops_at_server: Deviceops) -> None:
    simulated(deviceops_at_server, 2, "--devices=3")
    ingest(deviceops_at_server, announced(MANY, 1_000_000), announced(ZERO, 0))

    with operator.without_javascript():
        operator.open("/")
        assert "4 operations" in operator.text
        assert "Without JavaScript" in operator.text
        assert "0 of 1,000,000" in operator.text
        operator.find("input[name=state][value=CREATED]").click()
        operator.find("form.filters button").click()
        operator.wait_for("1 operation\n")
        assert "state=CREATED" in operator.driver.current_url
        operator.find("header input[type=search]").send_keys(str(MANY)[:8], Keys.ENTER)
        operator.wait_for("Ids that begin with", str(MANY), str(ZERO))
        operator.find("form[action='/sign-out'] button").click()
        operator.find("#token")
        operator.open("/")
        operator.find("#token")


def test_numbers_and_times_are_those_of_the_visitor(operator: Browser, deviceops_at_server: Deviceops) -> None:
    ingest(deviceops_at_server, announced(MANY, 1_234_567, deadline="2099-07-01T12:00:00Z"))

    operator.live_in("Europe/Berlin", "de-DE")
    operator.open("/")
    operator.wait_for("0 of 1.234.567")
    operator.find("#zone").click()
    assert operator.find("#zone").text == "Local time"
    operator.open("/")
    assert operator.find("#zone").text == "Local time"
    operator.wait_for("0 of 1.234.567")
