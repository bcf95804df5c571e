"""The API's documentation, as FastAPI serves it."""

from tests.support.browsing.browser import Browser
from tests.support.serving import Server


def test_the_documentation_shows_every_call_and_asks_no_other_host(browser: Browser, server: Server) -> None:
    browser.site = server.url
    browser.open("/docs")
    browser.wait_for("/v0/operations/", "/v0/dead-letters/replay/")
    assert browser.network.elsewhere(server.url) == []
    assert {each.status for each in browser.ended_requests() if each.url.startswith(server.url)} == {200}
