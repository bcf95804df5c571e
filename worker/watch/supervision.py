"""What the supervisor is told, and what happens when there is nobody left to tell it: the loop itself hangs.

systemd hears that the service is up once it runs, whether or not the broker and the database are there yet: its
status line says which of them is missing (sd_notify(3); elsewhere nothing is told).
"""

import asyncio
import faulthandler
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cysystemd.daemon import Notification, notify

from worker.watch.health import Health

BEAT = 1
"""Seconds between two signs of life."""
LEAVING = 10
"""Seconds beyond the time to drain after which a worker that should have left is ended."""


@asynccontextmanager
async def supervised(health: Health, stall_timeout: float, drain_timeout: float) -> AsyncIterator[None]:
    """Show signs of life for the length of a block.

    Should the event loop hang for `stall_timeout` seconds, or the process not have left `drain_timeout` seconds
    (and a few) after it was told to stop, it says where it hangs, and exits with 1 without more ado: what it was
    at comes again.
    """
    _tell(Notification.READY)
    beating = asyncio.create_task(_beat(health, stall_timeout, drain_timeout))
    try:
        yield
    finally:
        beating.cancel()
        # To be taken back by nobody: what is left, such as waiting for threads, can hang as well.
        _end_the_process_after(LEAVING)


async def _beat(health: Health, stall_timeout: float, drain_timeout: float) -> None:
    stopping = asyncio.create_task(health.stop.wait())
    told = ""
    while not stopping.done():
        _end_the_process_after(stall_timeout)
        _tell(Notification.WATCHDOG)
        if told != (told := str(health)):
            _tell(Notification.STATUS, told)
        await asyncio.wait([stopping], timeout=BEAT)
    _end_the_process_after(drain_timeout + LEAVING)
    _tell(Notification.STOPPING)
    while True:
        _tell(Notification.WATCHDOG)
        await asyncio.sleep(BEAT)


def _tell(what: Notification, text: str = "") -> None:
    if "NOTIFY_SOCKET" in os.environ:  # systemd's; without one, the library complains each time
        notify(what, text)


def _end_the_process_after(seconds: float) -> None:
    """Unless called again before: from a thread that needs neither the loop nor Python's lock."""
    faulthandler.dump_traceback_later(seconds, exit=True)
