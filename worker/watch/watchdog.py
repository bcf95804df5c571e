"""What the supervisor is told, and what happens when there is nobody left to tell it: the loop itself hangs.

systemd hears that the service is up once it runs, whether or not the broker and the database are there yet: its
status line says which of them is missing (sd_notify(3); elsewhere nothing is told).
"""

import asyncio
import faulthandler
import math
import os
import stat
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cysystemd.daemon import Notification, notify

from worker.watch.health import Health

BEAT = 1
"""Seconds between two signs of life."""
LEAVING = 10
"""Seconds beyond the time to drain after which a worker that should have left is ended."""
LAST_RESORT = 2
"""Seconds beyond that in which it must have said where it hangs."""


@asynccontextmanager
async def supervised(health: Health, stall_timeout: float, drain_timeout: float) -> AsyncIterator[None]:
    """Show signs of life for the length of a block.

    Should the event loop hang for `stall_timeout` seconds, or the process not have left `drain_timeout` seconds
    (and a few) after it was told to stop, it says where it hangs, and exits with 1 without more ado: what it was
    at comes again.
    """
    _tell(Notification.READY)
    watchdog = _Watchdog()
    beating = asyncio.create_task(_beat(watchdog, health, stall_timeout, drain_timeout))
    try:
        yield
    finally:
        beating.cancel()
        # To be taken back by nobody: what is left, such as waiting for threads, can hang as well.
        watchdog.end_the_process_after(LEAVING)


async def _beat(watchdog: "_Watchdog", health: Health, stall_timeout: float, drain_timeout: float) -> None:
    stopping = asyncio.create_task(health.stop.wait())
    told = ""
    while not stopping.done():
        watchdog.end_the_process_after(stall_timeout)
        _tell(Notification.WATCHDOG)
        if told != (told := str(health)):
            _tell(Notification.STATUS, told)
        await asyncio.wait([stopping], timeout=BEAT)
    watchdog.end_the_process_after(drain_timeout + LEAVING)
    _tell(Notification.STOPPING)
    while True:
        _tell(Notification.WATCHDOG)
        await asyncio.sleep(BEAT)


def _tell(what: Notification, text: str = "") -> None:
    if "NOTIFY_SOCKET" in os.environ:  # systemd's; without one, the library complains each time
        notify(what, text)


class _Watchdog:
    """Ends the process, and says where it hangs, by means that need neither the loop nor Python's lock."""

    def __init__(self) -> None:
        self._says = _never_waiting(2)
        self._deadline = math.inf
        threading.Thread(target=self._end_at_last, name="watchdog", daemon=True).start()

    def end_the_process_after(self, seconds: float) -> None:
        """Unless called again before."""
        self._deadline = time.monotonic() + seconds + LAST_RESORT
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._says)

    def _end_at_last(self) -> None:
        """Where standard error takes nothing, not even that."""
        while time.monotonic() < self._deadline:
            time.sleep(BEAT)
        os._exit(1)


def _never_waiting(descriptor: int) -> int:
    """A descriptor for the same pipe or terminal on which no write waits; for anything else, the same one.

    A write to a file does not wait, and a socket cannot be opened again. To change the descriptor itself would
    change it for all that have this pipe or terminal, such as the shell.
    """
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return descriptor
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return descriptor
