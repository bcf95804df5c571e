"""What a test does with a page: open it, read it, use it, look at it."""

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.browsing import axe
from tests.support.browsing.appearance import APPEARANCES, LAPTOP, TOO_WIDE, Appearance
from tests.support.browsing.chromium import LOGS
from tests.support.browsing.network import Network, Request

PATIENCE = 15
"""Seconds that something may take that should take a fraction of one."""
POLL_SECONDS = 0.02
T = TypeVar("T")


class Browser:
    """A tab of its own in a Chromium, without cookies, storage or cache of an earlier test.

    `site` is the address that paths are of. `folder` takes screenshots.
    """

    def __init__(self, driver: Chrome, folder: Path, site: str = "") -> None:
        self.driver = driver
        self.folder = folder
        self.site = site
        self._network = Network()
        self._console: list[str] = []
        self._begin()

    def _begin(self) -> None:
        old = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        new = self.driver.current_window_handle
        self.driver.switch_to.window(old)
        self.driver.close()
        self.driver.switch_to.window(new)
        self.cdp("Network.clearBrowserCookies")
        self.cdp("Network.clearBrowserCache")
        self.cdp("Storage.clearDataForOrigin", origin="*", storageTypes="all")
        for kind in LOGS:
            self._log(kind)
        self.cdp("Emulation.setScrollbarsHidden", hidden=True)  # as those of telephones, which take no width
        self.look(LAPTOP)

    def close(self) -> None:
        """Leave the page: its connections to the server end. The tab stays for the next test to begin with."""
        self.open("about:blank")

    def evidence(self) -> list[tuple[str, str]]:
        """Of a failure: sections of a report, with a picture in the folder."""
        try:
            picture = self.folder / "failure.png"
            picture.write_bytes(self.picture())
            said = {
                "page": self.text,
                "console": "\n".join(self.console),
                "requests": "\n".join(map(str, self.network.requests)),
            }
            return [(f"{name} at {self.driver.current_url}", text) for name, text in said.items()] + [
                ("picture", str(picture))
            ]
        except WebDriverException as error:
            return [("browser", f"cannot say what the page shows: {error.msg}")]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        """The entries since the last call."""
        return list(self.driver.get_log(kind))  # type: ignore[no-untyped-call]

    def cdp(self, command: str, **parameters: Any) -> Any:
        """What a command of the Chrome DevTools Protocol gives."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def open(self, path: str = "/") -> None:
        """Open an address of the site, or a whole one, and wait until it has loaded."""
        self.driver.get(urljoin(self.site, path))

    def sign_in(self, token: str, path: str = "/") -> None:
        """Open a page of the site, and sign in with a token of its API as it asks for one."""
        self.open(path)
        self.find("#token").send_keys(token)
        self.find("form[action='/sign-in'] button").click()
        self.find("header nav")

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns, also of a page whose own scripts are off."""
        return self.driver.execute_script(script, *arguments)

    @property
    def text(self) -> str:
        """What is to be read on the page."""
        return str(self.run("return document.body.innerText"))

    def find(self, selector: str) -> WebElement:
        """The first element of a CSS selector, as soon as there is one."""
        return self.until(lambda: next(iter(self.find_all(selector)), None), selector)

    def find_all(self, selector: str) -> Sequence[WebElement]:
        """The elements of a CSS selector that are there now."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
        """What a condition gives once it is true. Fails with `what` after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if result := condition():
                    return result
            except StaleElementReferenceException:
                pass  # the page has changed meanwhile
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}; the page shows\n{self.text}")
            time.sleep(POLL_SECONDS)

    def wait_for(self, *texts: str, seconds: float = PATIENCE) -> float:
        """Wait until the page shows all of some texts; gives the seconds that it took."""
        began = time.monotonic()
        self.until(lambda: all(text in self.text for text in texts), f"{texts}", seconds)
        return time.monotonic() - began

    @property
    def network(self) -> Network:
        """The requests since the test began, or since it was cleared."""
        self._network.take(self._log("performance"))
        return self._network

    def ended_requests(self) -> Sequence[Request]:
        """The requests of a page without a stream, as soon as all have ended: its icon's may come late."""

        def ended() -> Sequence[Request] | None:
            requests = self.network.requests
            return requests if all(each.is_ended for each in requests) else None

        return self.until(ended, "an answer to every request")

    @property
    def console(self) -> list[str]:
        """Warnings and errors of the console: of scripts, of Content-Security-Policy, of files not found."""
        self._console += [
            entry["message"] for entry in self._log("browser") if entry["level"] in ("WARNING", "SEVERE")
        ]
        return self._console

    @contextmanager
    def without_javascript(self) -> Iterator[None]:
        """Pages that are opened within the block run no script of theirs."""
        self.cdp("Emulation.setScriptExecutionDisabled", value=True)
        try:
            yield
        finally:
            self.cdp("Emulation.setScriptExecutionDisabled", value=False)

    def look(self, appearance: Appearance) -> None:
        """Have a screen of a size, and prefer a colour scheme."""
        size = {"width": appearance.width, "height": appearance.height, "deviceScaleFactor": 1}
        self.cdp("Emulation.setDeviceMetricsOverride", **size, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": appearance.scheme}
        self.cdp("Emulation.setEmulatedMedia", features=[feature])

    def live_in(self, zone: str, language: str) -> None:
        """Have a time zone, such as Europe/Berlin, and a language, such as de-DE, from the next page on."""
        self.cdp("Emulation.setTimezoneOverride", timezoneId=zone)
        self.cdp("Emulation.setLocaleOverride", locale=language)
        agent = self.run("return navigator.userAgent")
        self.cdp("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)

    def axe(self) -> str:
        """What axe-core finds on the page as it is now, a line for each element; nothing if it finds nothing."""
        if not self.run("return 'axe' in window"):
            self.run(axe.script())
        found = self.driver.execute_async_script(axe.RUN, axe.OPTIONS)
        assert "error" not in found, found["error"]
        return "\n".join(axe.violations(found["violations"]))

    def too_wide(self) -> Sequence[str]:
        """What makes the page scroll sideways."""
        return list(self.run(TOO_WIDE))

    def picture(self) -> bytes:
        """The screen, as PNG."""
        return base64.b64decode(self.cdp("Page.captureScreenshot", format="png")["data"])

    def screenshot(self, name: str) -> Sequence[Path]:
        """Pictures of the page, whole, in all appearances: `name-320-dark.png` and the like."""
        paths = []
        for appearance in APPEARANCES:
            self.look(appearance)
            paths.append(self.folder / f"{name}-{appearance}.png")
            whole = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            paths[-1].write_bytes(base64.b64decode(whole["data"]))
        self.look(LAPTOP)
        return paths

    def assert_presentable(self) -> None:
        """In all appearances axe-core finds nothing, and nothing is wider than the screen."""
        found = {}
        for appearance in APPEARANCES:
            self.look(appearance)
            found[str(appearance)] = [*self.too_wide(), *self.axe().splitlines()]
        self.look(LAPTOP)
        faults = {name: lines for name, lines in found.items() if lines}
        assert not faults, json.dumps(faults, indent=1)
