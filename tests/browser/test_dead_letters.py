"""Dead letters in the browser: for everybody, live, and with text from outside that is only ever text."""

import re

from tests.support.browsing.browser import Browser
from tests.support.command import Deviceops
from tests.support.rejecting import an_evening, of, rows, send
from tests.support.sending import DEVICES, OPERATIONS, report_body

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'</textarea>\u202e" + "long " * 40


def test_without_one_it_says_so(operator: Browser) -> None:
    operator.open("/dead-letters")
    assert "No open dead letters" in operator.text
    operator.assert_presentable()


def test_groups_one_and_each_form_are_for_everybody(operator: Browser, deviceops_at_server: Deviceops) -> None:
    url = deviceops_at_server.settings["database_url"]
    an_evening(url, parked=3, untrusted=4, conflicts=60, malformed=6)
    send(url, [of({**report_body(OPERATIONS[0], DEVICES[0], HOSTILE), "service_id": HOSTILE})])
    send(url, [of(report_body(OPERATIONS[0], DEVICES[0], "SUCCESS", service_id=HOSTILE[:255]), HOSTILE[:255])])
    operator.open("/dead-letters?reason=conflict&detail=SUCCESS+after+FAILURE+contradicts+it")
    operator.find("#note").send_keys(f"known since Monday {HOSTILE[:60]}")
    operator.find(".notes button").click()
    operator.wait_for("The note was added.")
    operator.open("/dead-letters")
    operator.assert_presentable()
    operator.screenshot("dead-letters")
    [(id_,)] = rows(url, "SELECT max(id) FROM dead_letters")
    for path, name in {
        f"/{id_}": "dead-letter",
        f"/{id_}/discard": "dead-letter-discard",
        f"/{id_}/dry-run": "dead-letter-dry-run",
        "/dry-run": "dead-letters-dry-run",
        "/discard?reason=conflict": "dead-letters-discard",
    }.items():
        operator.open(f"/dead-letters{path}")
        operator.assert_presentable()
        operator.screenshot(name)
    operator.open("/dead-letters?operation_id=no+id&since=yesterday")
    operator.wait_for("A filter cannot be read")
    operator.assert_presentable()
    operator.console.clear()  # the browser logs the status 400 of the page itself
    assert operator.network.elsewhere(operator.site) == []


def test_a_fault_is_beside_the_text_and_a_job_is_live(operator: Browser, deviceops_at_server: Deviceops) -> None:
    url = deviceops_at_server.settings["database_url"]
    an_evening(url, parked=0, untrusted=0, conflicts=1_500, malformed=1)
    [(id_,)] = rows(url, "SELECT id FROM dead_letters WHERE reason = 'malformed' AND type IS NULL")
    operator.open(f"/dead-letters/{id_}/edit")
    body = operator.find("#body")
    body.clear()
    body.send_keys('{\n  "operation_id": oops\n}')
    operator.find("form.edit button.primary").click()
    operator.wait_for("at line 2 column")
    assert operator.find("#body").get_attribute("value") == '{\n  "operation_id": oops\n}'
    operator.assert_presentable()
    operator.screenshot("dead-letter-edit")
    operator.console.clear()  # the browser logs the status 400 of the page itself

    operator.open("/dead-letters/dry-run?reason=conflict")
    operator.find("button.primary").click()
    operator.wait_for("of 1,500")
    operator.assert_presentable()
    operator.screenshot("dead-letters-job")
    operator.wait_for("1,500 of 1,500")
    operator.wait_for("It is done.")
    assert re.search(r"1,500\s+still dead: conflict", operator.text)
