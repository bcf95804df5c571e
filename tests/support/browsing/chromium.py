"""How Chromium and its driver are found, started and ended; nothing of it leaves this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.support.services.server import ServiceError

PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver", "setpriv": "util-linux"}
"""The Debian package of each program."""
OFF = (
    "AutofillServerCommunication",
    "CertificateTransparencyComponentUpdater",
    "DialMediaRouteProvider",
    "InterestFeedContentSuggestions",
    "MediaRouter",
    "OptimizationHints",
    "SegmentationPlatform",
    "Translate",
)
"""Features that ask servers of Google's."""
ARGUMENTS = (
    "--headless=new",
    "--remote-debugging-pipe",  # Chromium ends when its driver does
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    f"--disable-features={','.join(OFF)}",
    "--disable-gpu",
    "--disable-search-engine-choice-screen",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pings",
    "--no-proxy-server",
    "--password-store=basic",
    "--use-mock-keychain",
    # What a page asks of another host is in the list of its requests, and fails: no name has an address.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--lang=en-US",
)
LOGS = {"browser": "ALL", "performance": "ALL"}
"""What the driver keeps: messages of the console, and events of the network."""
DRIVER_SECONDS = 60
"""Seconds that a page may take to load, and a script to run."""


class _Service(ChromeService):
    """The driver, run by setpriv: it ends when the tests do, even when they are killed."""

    def command_line_args(self) -> list[str]:
        return ["--pdeathsig=TERM", program("chromedriver"), *super().command_line_args()]


def program(name: str) -> str:
    """Where a program is. Raises ServiceError with the package to install."""
    found = shutil.which(name)
    if found is None:
        raise ServiceError(f"The tests need {name}: run tests/run.sh, or apt-get install {PACKAGES[name]}.")
    return found


@contextmanager
def chromium(folder: Path) -> Iterator[Chrome]:
    """A Chromium whose profile and logs are in a folder; both programs end with the block.

    Raises ServiceError if one of them is not installed.
    """
    options = ChromeOptions()
    options.binary_location = program("chromium")
    for argument in (*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses to run as root
    options.set_capability("goog:loggingPrefs", LOGS)
    options.add_experimental_option("perfLoggingPrefs", {"enableNetwork": True, "enablePage": True})
    options.unhandled_prompt_behavior = "dismiss and notify"  # a dialog fails the test
    # Its own home: none of the user's settings, and nothing left behind. UTC, unless a test says otherwise.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "TZ": "UTC"}
    service = _Service(program("setpriv"), log_output=str(folder / "driver.log"), env=environment)
    driver = Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(DRIVER_SECONDS)
        driver.set_script_timeout(DRIVER_SECONDS)
        yield driver
    finally:
        driver.quit()
