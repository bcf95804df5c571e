"""Text from outside is text on every page: nothing of it runs, asks another host, or breaks the layout."""

import re
from collections import defaultdict
from urllib.parse import quote, urlencode, urljoin, urlsplit
from uuid import UUID

from tests.support.browsing import hostile
from tests.support.browsing.appearance import LAPTOP, Appearance
from tests.support.browsing.browser import Browser
from tests.support.command import Deviceops

VALUES = 2_000
OPERATION = UUID("f00d0000-0000-4000-8000-000000000000")
OF_A_KIND = 3
"""Pages of each kind that are looked at, of those that links lead to."""
KINDS = {
    "/",
    "/operations/*",
    "/operations/*/devices/*",
    "/operations/*/cancel",
    "/devices/*",
    "/dead-letters",
    "/dead-letters/*",
    "/dead-letters/*/edit",
    "/dead-letters/*/dry-run",
    "/dead-letters/discard",
    "/system",
    "/system/audit",
}
"""Pages that are found by following links."""
TELEPHONE = Appearance(320, 640, "dark")
NO_PAGES = re.compile(r"/(v0|docs|static|events|openapi\.json)\b|/sign-out|\.csv|\.jsonl|/export")


def faults(browser: Browser, *appearances: Appearance) -> list[str]:
    """What is wrong with the page, also in each of some appearances; that its status is not 200 is not."""
    console = [line for line in browser.console if "the server responded with a status of" not in line]
    found = [*browser.run(hostile.INTRUDERS), *console, *browser.network.elsewhere(browser.site)]
    for appearance in appearances:
        browser.look(appearance)
        found += [*browser.run(hostile.DEFORMED), *browser.too_wide()]
    browser.console.clear()
    browser.network.clear()
    return found


def kind(address: str) -> str:
    """Addresses that differ in ids and in parameters are of a kind."""
    return re.sub(r"/(?:\d+|[0-9a-f-]{36})(?=/|$)", "/*", urlsplit(address).path)


def links(browser: Browser) -> list[str]:
    """The addresses of other pages that a page links to."""
    found = browser.run("return [...document.querySelectorAll('main a[href], nav a[href]')].map(a => a.href)")
    return [address for address in found if not NO_PAGES.search(urlsplit(address).path)]


def test_no_page_takes_text_from_outside_for_more_than_text(
    operator: Browser, deviceops_at_server: Deviceops, full: bool
) -> None:
    deviceops_at_server.out("ingest", "-", lines=hostile.lines(VALUES, OPERATION))

    seen: defaultdict[str, list[str]] = defaultdict(list)
    waiting, wrong = [urljoin(operator.site, "/")], {}
    while waiting:
        address = waiting.pop(0)
        known = seen[kind(address)]
        if address in known or len(known) >= (VALUES if full else OF_A_KIND):
            continue
        known.append(address)
        operator.open(address)
        found = faults(operator, TELEPHONE, LAPTOP)
        if len(known) == 1:
            found += operator.axe().splitlines()
        if found:
            wrong[address] = found
        waiting += links(operator)
    assert not wrong, "\n".join(f"{address}: {each}" for address, some in wrong.items() for each in some)
    assert seen.keys() >= KINDS


def test_text_from_outside_that_arrives_while_a_page_is_open_is_text(
    operator: Browser, deviceops_at_server: Deviceops
) -> None:
    for number in (30, 60):  # others come first in the list: the rows are swapped while the page is open
        deviceops_at_server.out("ingest", "-", lines=hostile.lines(number, OPERATION))
        operator.wait_for("<script>window.ran=1</script>")
        assert faults(operator, TELEPHONE, LAPTOP) == []


def test_text_in_an_address_is_text(operator: Browser) -> None:
    operator.look(TELEPHONE)
    addresses = [f"/search?{urlencode({'q': text[:1_000]})}" for text in (*hostile.SCRIPTS, *hostile.DEFORMERS)]
    for name in ("operation_type", "state", "created_after", "cursor", "limit"):
        addresses.append(f"/?{urlencode({name: hostile.SCRIPTS[1]})}")
    addresses.append(f"/{quote(hostile.SCRIPTS[0])}")
    for address in addresses:
        operator.open(address)
        assert operator.find("main")
        assert faults(operator) == [], address
        assert operator.too_wide() == [], address
