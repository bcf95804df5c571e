"""A Chromium for each process of a run, and for each test a tab of its own."""

from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from selenium.webdriver import Chrome

from tests.support.browsing.browser import Browser
from tests.support.browsing.chromium import chromium
from tests.support.command import Deviceops
from tests.support.serving import Server, serving


@pytest.fixture(scope="session")
def _chromium() -> Iterator[Chrome]:
    with TemporaryDirectory(prefix="deviceops-chromium-") as folder, chromium(Path(folder)) as driver:
        yield driver


@pytest.fixture
def browser(_chromium: Chrome, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Browser]:
    """A tab with nothing of an earlier test. At the end the console must have no warning and no error.

    A test that expects some reads `console` and clears it.
    """
    screenshots: Path | None = request.config.getoption("--screenshots")
    if screenshots is not None:
        screenshots.mkdir(parents=True, exist_ok=True)
    browser = Browser(_chromium, screenshots or tmp_path)
    yield browser
    console = browser.console
    browser.close()
    assert not console, "\n".join(console)


@pytest.fixture
def operator(browser: Browser, server: Server) -> Browser:
    """The browser at `server`, signed in with a token that may do everything."""
    browser.site = server.url
    browser.sign_in(server.token)
    return browser


@pytest.fixture
def watched(browser: Browser, deviceops: Deviceops) -> Iterator[Browser]:
    """The browser at a server of the test's own, signed in; once on each kind of database."""
    with serving(deviceops) as server:
        browser.site = server.url
        browser.sign_in(server.token)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have a failure say what the page showed, and keep a picture of it."""
    report = yield
    browser = getattr(item, "funcargs", {}).get("browser")
    if report.when == "call" and report.failed and browser is not None:
        report.sections += browser.evidence()
    return report
