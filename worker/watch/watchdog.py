"""systemd notifications, and a watchdog that ends the process when its event loop hangs.

systemd is notified as soon as the service runs, whether or not the broker and the database are up: its status line
names what is down (sd_notify(3); without systemd nothing is sent).
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

HEARTBEAT = 1
"""Seconds between two heartbeats."""
EXIT_GRACE = 10
"""Seconds after the drain timeout before a stopping worker is ended."""
TRACEBACK_GRACE = 2
"""Seconds for writing the tracebacks before the process is ended without them."""


@asynccontextmanager
async def supervised(health: Health, stall_timeout: float, drain_timeout: float) -> AsyncIterator[None]:
    """Supervise the event loop for the duration of a block.

    If the loop hangs for `stall_timeout` seconds, or the process has not exited `drain_timeout` seconds (plus
    EXIT_GRACE) after `health.stop` is set, the tracebacks of all threads are written and the process exits with 1:
    unacknowledged messages are redelivered.
    """
    _notify(Notification.READY)
    watchdog = _Watchdog()
    heartbeats = asyncio.create_task(_send_heartbeats(watchdog, health, stall_timeout, drain_timeout))
    try:
        yield
    finally:
        heartbeats.cancel()
        # Stays armed: the rest of the exit, such as joining threads, can hang as well.
        watchdog.end_the_process_after(EXIT_GRACE)


async def _send_heartbeats(
    watchdog: "_Watchdog", health: Health, stall_timeout: float, drain_timeout: float
) -> None:
    stopping = asyncio.create_task(health.stop.wait())
    status = ""
    while not stopping.done():
        watchdog.end_the_process_after(stall_timeout)
        _notify(Notification.WATCHDOG)
        if status != (status := str(health)):
            _notify(Notification.STATUS, status)
        await asyncio.wait([stopping], timeout=HEARTBEAT)
    watchdog.end_the_process_after(drain_timeout + EXIT_GRACE)
    _notify(Notification.STOPPING)
    while True:
        _notify(Notification.WATCHDOG)
        await asyncio.sleep(HEARTBEAT)


def _notify(kind: Notification, text: str = "") -> None:
    if "NOTIFY_SOCKET" in os.environ:  # set by systemd; without it the library logs an error each time
        notify(kind, text)


class _Watchdog:
    """Writes tracebacks and ends the process; needs neither the event loop nor the GIL."""

    def __init__(self) -> None:
        self._stderr = _non_blocking(2)
        self._deadline = math.inf
        threading.Thread(target=self._end_without_traceback, name="watchdog", daemon=True).start()

    def end_the_process_after(self, seconds: float) -> None:
        """Arm it: end the process in `seconds` unless this is called again before."""
        self._deadline = time.monotonic() + seconds + TRACEBACK_GRACE
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._stderr)

    def _end_without_traceback(self) -> None:
        """End the process where even the blocked standard error keeps faulthandler from exiting."""
        while time.monotonic() < self._deadline:
            time.sleep(HEARTBEAT)
        os._exit(1)


def _non_blocking(descriptor: int) -> int:
    """A non-blocking descriptor for the same pipe or terminal; for anything else, the same descriptor.

    Writes to a file do not block, and a socket cannot be reopened. Setting O_NONBLOCK on the descriptor itself
    would set it for every process that shares the pipe or terminal, such as the shell.
    """
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return descriptor
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return descriptor
